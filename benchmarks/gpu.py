"""python -m benchmarks.gpu: what only a GPU can show. Prints a table and writes benchmarks/results/gpu_<device>.json.

GPT-2 124M over sequences of 1,024 tokens, a bare loop for all: each attention backend, plain and compiled, bf16 and fp16, 8-bit
AdamW, and the peers. Tokens per second, MFU, and peak memory; a row that cannot run says why.
"""

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

import analysis.budget
from analysis.budget import peak_flops
from benchmarks.machine import describe
from benchmarks.tables import Lines, print_table, write_results
from benchmarks.training import litgpt_model, transformers_model
from gpt_lightning.model import GPT, GPTConfig

SHAPE = {"n_layers": 12, "d_model": 768, "n_heads": 12, "vocab_size": 50304, "max_seq_len": 1024, "batch": 32}
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


NOT_MEASURED = [row | {"error": "not measured"} for row in ROWS]
SEGMENTS = 5  # a row's time is the median of these


def measure(row: dict[str, Any], shape: dict[str, int], *, device: str, steps: int) -> dict[str, float]:
    """Tokens per second, the median of five segments of `steps` steps after three that are not counted; peak megabytes."""
    torch.manual_seed(0)
    model, loss = _contestant(row, shape)
    model.to(device).train()
    dtype = getattr(torch, row.get("dtype", "bfloat16"))
    scaler = torch.amp.GradScaler(device, enabled=dtype == torch.float16)
    optimizer = _optimizer(row.get("optimizer", "AdamW"), model)

    def step() -> None:
        ids = torch.randint(0, shape["vocab_size"], (shape["batch"], shape["max_seq_len"] + 1), device=device)
        with torch.autocast(device, dtype=dtype):
            value = loss(model, ids[:, :-1].contiguous(), ids[:, 1:].contiguous())
        scaler.scale(value).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    def seconds_of(steps: int) -> float:
        begin = time.perf_counter()
        for _ in range(steps):
            step()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    seconds_of(3)
    seconds = statistics.median(seconds_of(steps) for _ in range(SEGMENTS))
    peak = torch.cuda.max_memory_allocated() / 1e6 if device == "cuda" else 0.0
    return {"tokens_per_second": steps * shape["batch"] * shape["max_seq_len"] / seconds, "mb": peak}


def lines(rows: list[dict[str, Any]]) -> Lines:
    """The table: each row beside the fastest peer that is compiled if it is; a row that did not run says why."""
    table = [["GPU: 124M, T 1,024, batch 32", "tokens/s", "against the faster peer", "MFU", "peak memory"]]
    for row in rows:
        label = ", ".join(
            [*(str(row[key]) for key in ("who", "attention") if key in row), row.get("dtype", "bfloat16")]
        )
        label += ", 8-bit AdamW" if row.get("optimizer") == "AdamW8bit" else ""
        label += ", compiled" if row["compile"] else ""
        if "error" in row:
            table.append([label, row["error"], "", "", ""])
            continue
        speed = row["tokens_per_second"]
        peers = [
            other["tokens_per_second"]
            for other in rows
            if other["who"] != "ours" and other["compile"] == row["compile"] and "error" not in other
        ]
        ratio = f"{speed / max(peers):.2f} x" if row["who"] == "ours" and peers else ""
        mfu = "not known" if row["mfu"] is None else f"{row['mfu']:.1%}"
        table.append([label, f"{speed:,.0f}", ratio, mfu, f"{row['mb']:,.0f} MB"])
    return table


def flops_per_token(shape: dict[str, int]) -> int:
    """As `analysis.budget` counts them, for every contestant alike."""
    return analysis.budget.flops_per_token(asdict(_gpt2(shape, "sdpa")))


def _gpt2(shape: dict[str, int], attention: str) -> GPTConfig:
    sizes: dict[str, Any] = {key: value for key, value in shape.items() if key != "batch"}
    return GPTConfig(**sizes, d_ff=4 * shape["d_model"], feed_forward="gelu_tanh", attention=attention)


def _contestant(row: dict[str, Any], shape: dict[str, int]) -> tuple[nn.Module, Callable[..., Tensor]]:
    if row["who"] == "ours":
        ours = GPT(_gpt2(shape, row["attention"]))
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


def main() -> None:
    """Measure every row on this machine's GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=4)
    steps = parser.parse_args().steps
    if not torch.cuda.is_available():
        raise SystemExit("error: torch finds no CUDA device here, so there is nothing to measure.")
    name = torch.cuda.get_device_name()
    rows = []
    for row in ROWS:
        gc.collect()  # the row before
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        torch._dynamo.reset()
        try:
            result: dict[str, Any] = measure(row, SHAPE, device="cuda", steps=steps)
        except Exception as error:  # one row that cannot run must not lose the others
            result = {"error": str(error).splitlines()[0]}
        else:
            peak = peak_flops(name, {"bfloat16": "bf16", "float16": "fp16"}[row.get("dtype", "bfloat16")])
            result["mfu"] = result["tokens_per_second"] * flops_per_token(SHAPE) / peak if peak else None
        rows.append(row | result)
        print_table(lines(rows[-1:]))
    print_table(lines(rows))
    write_results(f"gpu_{name.replace(' ', '_').lower()}", {"machine": describe("cuda"), "shape": SHAPE, "rows": rows})


if __name__ == "__main__":
    main()
