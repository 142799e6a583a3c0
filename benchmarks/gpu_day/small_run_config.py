"""Small runs of the real train.py on one corpus, and the callbacks that observe and disturb them."""

import json
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch

from benchmarks.training import STDLIB_ALONE
from gpt_lightning.lit_gpt import LitGPT
from running.config import allowed_targets
from running.config.compose import compose_config

SMALL = [
    *("experiment=quickstart", "model=gpt2_124m", "tokenizer=gpt2", "data.verify=false", "data.val_sequences=8"),
    *("model.n_layers=4", "model.d_model=256", "model.n_heads=4", "model.d_ff=1024", "model.max_seq_len=256"),
    *("global_batch=16", "micro_batch=8", "max_steps=20", "schedule.warmup_steps=4", "log_every=1", "val_every=1000"),
    *("callbacks.samples.every=1000", "callbacks.samples.max_new_tokens=4", "callbacks.checkpoints.every=1000"),
]
TINY = ["model.n_layers=2", "model.d_model=64", "model.n_heads=2", "model.d_ff=256", "model.max_seq_len=64"]
# callbacks whose comparisons or divisions fail with a GPU that computes nothing
UNJUDGED = ["~callbacks.mix_ledger", "~callbacks.validation"]
REHEARSED = [*TINY, *UNJUDGED]


def rehearse(wanted: bool) -> None:
    """In a rehearsal, disable what fails on a GPU without numbers or cuDNN."""
    if wanted:
        torch.backends.cuda.enable_cudnn_sdp(False)
        LitGPT.refuse_ruined_weights = lambda self: None  # type: ignore[method-assign]


Fingerprints = dict[int, dict[str, int]]
"""Step -> tensor -> fingerprint of its bits."""


def config_of(overrides: Sequence[str], *, probe: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The config of a run of train.py on one corpus, with a callback of this file.

    Args:
        overrides: settings, `key=value` each.
        probe: the name of the callback's class as `kind`, and its arguments.
    """
    if "benchmarks" not in allowed_targets.CALLBACKS:
        allowed_targets.CALLBACKS = (*allowed_targets.CALLBACKS, "benchmarks")
    config = compose_config("train", list(overrides))
    config["curriculum"] = STDLIB_ALONE
    if probe:
        node = {key: value for key, value in probe.items() if key != "kind"}
        node["_target_"] = f"benchmarks.gpu_day.small_run_config.{probe['kind']}"
        config["callbacks"] = {"probe": node} | config["callbacks"]
    return config


class TensorLog(L.Callback):
    """Writes fingerprints.jsonl: one line per step, with a number for each parameter that depends on all of its bits.

    Args:
        stop_after: step in which the first start sends SIGTERM to its own process; None: never.
    """

    def __init__(self, *, stop_after: int | None = None) -> None:
        self._stop_after = stop_after
        self._first_start = False

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._first_start = trainer.global_step == 0

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        parameters = dict(pl_module.model.named_parameters())
        numbers = torch.stack([fingerprint(parameter.detach()) for parameter in parameters.values()]).tolist()
        row = {"step": trainer.global_step, "of": dict(zip(parameters, numbers, strict=True))}
        with (Path(trainer.default_root_dir) / "fingerprints.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        is_last = trainer.global_step + 1 == self._stop_after
        if self._first_start and is_last and batch_idx % trainer.accumulate_grad_batches == 0:
            os.kill(os.getpid(), signal.SIGTERM)


def fingerprint(x: torch.Tensor) -> torch.Tensor:
    """Sum of the bits of each number times an odd factor for its position, modulo 2^64, in any order."""
    bits = x.contiguous().view({2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]).flatten().long()
    return (bits * (2 * torch.arange(len(bits), device=x.device) + 1)).sum()


def fingerprints_of(run: Path) -> Fingerprints:
    """The content of fingerprints.jsonl. Of a repeated step, the second one counts."""
    lines = (run / "fingerprints.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["step"]: row["of"] for row in map(json.loads, lines)}


class Overflow(L.Callback):
    """Scales the loss of step `at` (counted from 0) beyond fp16, and records what the step changed."""

    seen: dict[str, Any]

    def __init__(self, *, at: int) -> None:
        self._at = at
        Overflow.seen = {}

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self._at and not Overflow.seen:
            scaler = _scaler(trainer)
            Overflow.seen["scale_before"] = scaler.get_scale()
            scaler.update(2.0**60)
            Overflow.seen |= {"weights_before": _all_bits(pl_module), "schedule_before": _scheduled(trainer)}

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *args: Any) -> None:
        if trainer.global_step == self._at + 1 and "scale_after" not in Overflow.seen:
            scaler = _scaler(trainer)
            Overflow.seen |= {"scale_after": scaler.get_scale(), "left_out": pl_module.left_out}
            Overflow.seen |= {"weights_after": _all_bits(pl_module), "schedule_after": _scheduled(trainer)}
            scaler.update(Overflow.seen["scale_before"])


class Poison(L.Callback):
    """Makes the hidden states of step `at` (counted from 0) NaN, and changes no weight."""

    def __init__(self, *, at: int) -> None:
        self._at = at

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, *args: Any) -> None:
        if trainer.global_step == self._at:
            pl_module.model.norm.register_forward_hook(lambda module, given, hidden: hidden * float("nan"))


class NoWaiting(L.Callback):
    """Between steps `after` and `before`, raises an error if the host waits for the device."""

    def __init__(self, *, after: int, before: int) -> None:
        self._after, self._before = after, before

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        watched = self._after <= trainer.global_step < self._before
        torch.cuda.set_sync_debug_mode("error" if watched else "default")

    def on_exception(self, *args: Any) -> None:
        torch.cuda.set_sync_debug_mode("default")


def _scaler(trainer: L.Trainer) -> Any:
    return trainer.precision_plugin.scaler  # type: ignore[attr-defined]


def _scheduled(trainer: L.Trainer) -> int:
    return int(trainer.lr_scheduler_configs[0].scheduler.last_epoch)


def _all_bits(module: Any) -> list[int]:
    return [int(fingerprint(parameter.detach())) for parameter in module.model.parameters()]
