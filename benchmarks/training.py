"""A training step of one contestant: milliseconds and peak memory.

Ours is `train.train`, through Lightning's Trainer with every callback of the shipped config at its usual interval, on
prepared shards. The peers are what a user would write by hand, without a loader, a log or checkpoints: autocast,
backward, clipping, fused AdamW, on tokens in memory.
"""

import tempfile
import time
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from benchmarks.machine import AddedMemory
from running.commands.train import train
from running.config import allowed_targets
from running.config.compose import compose_config

WARM_UP = 3  # steps that are not counted
STDLIB_ALONE: dict[str, Any] = {
    "unit": "fraction",
    "interpolation": "linear",
    "max_epochs": {},
    "on_exhausted": "repeat",
    "keyframes": {"start": {"at": 0.0, "weights": {"stdlib": 1.0}}},
}


def measure(who: str, *, shape: dict[str, int], precision: str, steps: int) -> dict[str, float]:
    """Mean milliseconds per step after the warm-up, and the added megabytes at the peak.

    Args:
        who: ours, transformers or litgpt.
        shape: n_layers, d_model, n_heads, vocab_size, max_seq_len and batch.
        precision: 32-true or bf16-mixed.
        steps: number of counted steps.
    """
    if who == "ours":
        return _ours(shape, precision, steps)
    model, loss = {"transformers": transformers_model, "litgpt": litgpt_model}[who](shape)
    return _bare_loop(model, loss, shape, precision, steps)


class Clock(L.Callback):
    """Records the end time of every step."""

    ends: list[float]

    def __init__(self) -> None:
        Clock.ends = []

    def on_train_batch_end(self, *args: Any) -> None:
        Clock.ends.append(time.perf_counter())


def _ours(shape: dict[str, int], precision: str, steps: int) -> dict[str, float]:
    allowed_targets.CALLBACKS = (*allowed_targets.CALLBACKS, "benchmarks")
    tokenizer = "bpe_4096" if shape["vocab_size"] == 4096 else "gpt2"
    sizes = {key: shape[key] for key in ("n_layers", "d_model", "n_heads", "vocab_size", "max_seq_len")}
    with tempfile.TemporaryDirectory() as folder:
        config = compose_config(
            "train",
            [
                *("experiment=quickstart", "model=gpt2_124m", f"tokenizer={tokenizer}", f"runs_dir={folder}"),
                *(f"model.{key}={value}" for key, value in sizes.items()),
                *(f"model.d_ff={4 * shape['d_model']}", "model.dropout=0", f"trainer.precision={precision}"),
                *(f"global_batch={shape['batch']}", f"micro_batch={shape['batch']}"),
                *(f"max_steps={WARM_UP + steps}", "schedule.warmup_steps=1", "trainer.accelerator=cpu"),
            ],
        )
        config["curriculum"] = STDLIB_ALONE
        config["callbacks"] = {"clock": {"_target_": "benchmarks.training.Clock"}} | config["callbacks"]
        memory = AddedMemory()
        train(config)
        return _result(Clock.ends[WARM_UP - 1], Clock.ends[-1], steps, memory)


def _bare_loop(
    model: Callable[[], nn.Module],
    loss: Callable[[nn.Module, Tensor, Tensor], Tensor],
    shape: dict[str, int],
    precision: str,
    steps: int,
) -> dict[str, float]:
    torch.manual_seed(0)
    memory = AddedMemory()
    net = model().train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)
    for step in range(WARM_UP + steps):
        if step == WARM_UP:
            begin = time.perf_counter()
        ids = torch.randint(0, shape["vocab_size"], (shape["batch"], shape["max_seq_len"] + 1))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16-mixed"):
            value = loss(net, ids[:, :-1].contiguous(), ids[:, 1:].contiguous())
        value.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return _result(begin, time.perf_counter(), steps, memory)


def _result(begin: float, end: float, steps: int, memory: AddedMemory) -> dict[str, float]:
    return {"ms": 1e3 * (end - begin) / steps, "mb": memory.mb()}


def transformers_model(shape: dict[str, int]) -> tuple[Any, Any]:
    """A function that builds transformers' GPT-2 of this shape, and its loss."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=shape["vocab_size"],
        n_positions=shape["max_seq_len"],
        n_embd=shape["d_model"],
        n_layer=shape["n_layers"],
        n_head=shape["n_heads"],
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
        bos_token_id=0,
        eos_token_id=0,
    )
    # its own loss shifts the labels, so it predicts one token fewer
    return lambda: GPT2LMHeadModel(config), lambda model, ids, targets: model(input_ids=ids, labels=ids).loss


def litgpt_model(shape: dict[str, int]) -> tuple[Any, Any]:
    """A function that builds litgpt's GPT of this shape, and its loss."""
    from litgpt.config import Config
    from litgpt.model import GPT
    from litgpt.utils import chunked_cross_entropy

    config = Config(  # as close to GPT-2 as its options allow; it only has rotary positions
        block_size=shape["max_seq_len"],
        n_layer=shape["n_layers"],
        n_embd=shape["d_model"],
        n_head=shape["n_heads"],
        vocab_size=shape["vocab_size"],
        padded_vocab_size=shape["vocab_size"],
        intermediate_size=4 * shape["d_model"],
        bias=True,
        norm_class_name="LayerNorm",
        mlp_class_name="GptNeoxMLP",
        gelu_approximate="tanh",
        parallel_residual=False,
        rotary_percentage=1.0,
    )

    def build() -> nn.Module:
        model = GPT(config)
        model.lm_head.weight = model.transformer.wte.weight  # as in GPT-2
        return model

    return build, lambda model, ids, targets: chunked_cross_entropy(model(ids), targets)
