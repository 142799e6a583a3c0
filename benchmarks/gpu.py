"""python -m benchmarks.gpu: what only a GPU can show. Prints a table and writes benchmarks/results/<device>.json.

GPT-2 124M over sequences of 1,024 tokens, a bare loop for all: each attention backend, plain and compiled, bf16 and fp16, 8-bit
AdamW, and the peers. Tokens per second, MFU, and peak memory; a row that cannot run says why.
"""

import argparse
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.machine import describe
from benchmarks.training import litgpt_model, transformers_model
from gpt_lightning.model import GPT, GPTConfig

SHAPE = {"n_layers": 12, "d_model": 768, "n_heads": 12, "vocab_size": 50304, "max_seq_len": 1024, "batch": 32}
# Dense bf16 FLOP/s by the makers' data sheets; a device that is not here has no MFU.
PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "A10G": 70e12}
RESULTS = Path(__file__).parent / "results"
ROWS: list[dict[str, Any]] = [
    *(
        {"who": "ours", "attention": attention, "compile": compiled}
        for attention in ("manual", "sdpa", "flash")
        for compiled in (False, True)
    ),
    {"who": "ours", "attention": "sdpa", "compile": True, "dtype": "float16"},
    {"who": "ours", "attention": "sdpa", "compile": True, "optimizer": "AdamW8bit"},
    {"who": "transformers", "compile": False},
    {"who": "transformers", "compile": True},
    {"who": "litgpt", "compile": False},
    {"who": "litgpt", "compile": True},
]


def measure(row: dict[str, Any], shape: dict[str, int], *, device: str, steps: int) -> dict[str, float]:
    """Tokens per second over `steps` steps after three that are not counted, and peak megabytes."""
    torch.manual_seed(0)
    model, loss = _contestant(row, shape)
    model.to(device).train()
    dtype = getattr(torch, row.get("dtype", "bfloat16"))
    scaler = torch.amp.GradScaler(device, enabled=dtype == torch.float16)
    optimizer = _optimizer(row.get("optimizer", "AdamW"), model)
    for step in range(3 + steps):
        if step == 3:
            _synchronise(device)
            begin = time.perf_counter()
        ids = torch.randint(0, shape["vocab_size"], (shape["batch"], shape["max_seq_len"] + 1), device=device)
        with torch.autocast(device, dtype=dtype):
            value = loss(model, ids[:, :-1].contiguous(), ids[:, 1:].contiguous())
        scaler.scale(value).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    _synchronise(device)
    seconds = time.perf_counter() - begin
    tokens_per_second = steps * shape["batch"] * shape["max_seq_len"] / seconds
    peak = torch.cuda.max_memory_allocated() / 1e6 if device == "cuda" else 0.0
    return {"tokens_per_second": tokens_per_second, "mb": peak}


def flops_per_token(shape: dict[str, int]) -> float:
    """6 N + 12 n_layers d_model T, N without the table of positions."""
    d_model, n_layers = shape["d_model"], shape["n_layers"]
    n_parameters = 12 * n_layers * d_model**2 + shape["vocab_size"] * d_model
    return 6 * n_parameters + 12 * n_layers * d_model * shape["max_seq_len"]


def peak_flops(device_name: str) -> float | None:
    """The device's dense peak in half precision; None: not known."""
    words = re.split(r"[\s-]", device_name)
    if {"PCIe", "NVL"} & set(words):  # slower variants of the same name
        return None
    return next((flops for name, flops in PEAK_FLOPS.items() if name in words), None)


def _contestant(row: dict[str, Any], shape: dict[str, int]) -> tuple[nn.Module, Callable[..., Tensor]]:
    if row["who"] == "ours":
        sizes = {key: value for key, value in shape.items() if key != "batch"}
        ours = GPT(
            GPTConfig(**sizes, d_ff=4 * shape["d_model"], feed_forward="gelu_tanh", attention=row["attention"])  # type: ignore[arg-type]
        )
        if row["compile"]:
            ours.compile_blocks()
        return ours, lambda model, ids, targets: model.loss(ids, targets)
    build, loss = {"transformers": transformers_model, "litgpt": litgpt_model}[row["who"]](shape)
    model = build()
    if row["compile"]:
        model.compile()
    return model, loss


def _optimizer(name: str, model: nn.Module) -> Any:
    if name == "AdamW8bit":
        from bitsandbytes.optim import AdamW8bit

        return AdamW8bit(model.parameters(), lr=1e-4)
    return torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)


def _synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    """Measure every row on this machine's GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    steps = parser.parse_args().steps
    RESULTS.mkdir(exist_ok=True)  # now rather than after the measurements
    if not torch.cuda.is_available():
        raise SystemExit("error: torch finds no CUDA device here, so there is nothing to measure.")
    name = torch.cuda.get_device_name()
    peak, results = peak_flops(name), []
    table = Table("124M, T 1,024", "tokens/s", "MFU", "peak MB", title=name)
    for row in ROWS:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        torch._dynamo.reset()
        label = ", ".join(f"{key} {value}" if key == "compile" else str(value) for key, value in row.items())
        try:
            result: dict[str, Any] = measure(row, SHAPE, device="cuda", steps=steps)
        except Exception as error:  # one row that cannot run must not lose the others
            result = {"error": str(error).splitlines()[0]}
            table.add_row(label, result["error"], "", "")
        else:
            speed = result["tokens_per_second"]
            mfu = f"{speed * flops_per_token(SHAPE) / peak:.1%}" if peak else "device unknown"
            table.add_row(label, f"{speed:,.0f}", mfu, f"{result['mb']:,.0f}")
        results.append(row | result)
    Console(width=140).print(table)
    path = RESULTS / f"{name.replace(' ', '_').lower()}.json"
    path.write_text(json.dumps({"machine": describe(), "shape": SHAPE, "rows": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
