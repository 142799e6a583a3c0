"""Faults that act inside a victim: each function is called in it before train.py runs, with plain values from the test."""

import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gpt_lightning.lit_gpt import LitGPT
from gpt_lightning.model.loss_head import SummedLoss

_CHANGES = {
    "os.rename": 2,
    "os.remove": 1,
    "os.mkdir": 1,
    "os.rmdir": 1,
    "os.link": 2,
    "os.symlink": 2,
    "os.truncate": 1,
}


def send(*, signal_name: str, micro_batch: int) -> None:
    """Send this process a signal as a micro-batch (0 is the run's first) begins."""
    training_step = LitGPT.training_step

    def interrupted(lit: LitGPT, batch: Any, batch_idx: int) -> torch.Tensor:
        if batch_idx == micro_batch:
            os.kill(os.getpid(), signal.Signals[signal_name])
        return training_step(lit, batch, batch_idx)

    LitGPT.training_step = interrupted  # type: ignore[method-assign]


def spoil_loss(*, micro_batch: int, factor: str) -> None:
    """Multiply the loss of one micro-batch (0 is the run's first), as training sees and descends it: nan, inf, or a number."""
    training_step = LitGPT.training_step

    def spoiled(lit: LitGPT, batch: Any, batch_idx: int) -> torch.Tensor:
        if batch_idx != micro_batch:
            return training_step(lit, batch, batch_idx)
        loss_sum = lit.model.loss_sum
        lit.model.loss_sum = lambda *args: SummedLoss(*(value * float(factor) for value in loss_sum(*args)))  # type: ignore[method-assign]
        try:
            return training_step(lit, batch, batch_idx)
        finally:
            del lit.model.loss_sum

    LitGPT.training_step = spoiled  # type: ignore[method-assign]


def read_late() -> None:
    """Read the numbers of a step while the next one is computed, as on a GPU."""
    LitGPT._reads_late = lambda lit: True  # type: ignore[method-assign]


def spoil_gradient(*, micro_batch: int, factor: str) -> None:
    """Multiply one number of one gradient, as one micro-batch adds it; the losses stay as they are."""
    training_step = LitGPT.training_step

    def spoiled(lit: LitGPT, batch: Any, batch_idx: int) -> torch.Tensor:
        if batch_idx == micro_batch:
            last = [*lit.model.parameters()][-1]
            hook = last.register_hook(lambda gradient: hook.remove() or gradient * float(factor))
        return training_step(lit, batch, batch_idx)

    LitGPT.training_step = spoiled  # type: ignore[method-assign]


def cut_off(*, folder: str, micro_batch: int) -> None:
    """Leave nothing in all shards below a folder as a micro-batch (0 is the run's first) begins."""
    training_step = LitGPT.training_step

    def cutting(lit: LitGPT, batch: Any, batch_idx: int) -> torch.Tensor:
        if batch_idx == micro_batch:
            for path in Path(folder).rglob("*.npy"):
                os.truncate(path, 0)
        return training_step(lit, batch, batch_idx)

    LitGPT.training_step = cutting  # type: ignore[method-assign]


def draw_random_numbers() -> None:
    """Draw some in each step, as a callback of the user's may do."""
    before = LitGPT.on_before_optimizer_step

    def drawing(lit: LitGPT, optimizer: Any) -> None:
        random.random()
        np.random.rand()  # noqa: NPY002  # the generator that is meant
        before(lit, optimizer)

    LitGPT.on_before_optimizer_step = drawing  # type: ignore[method-assign]


def slow(*, seconds: float, after: int = 0) -> None:
    """Let each step after a first few last at least so long, asleep."""
    began = [time.monotonic()]
    before = LitGPT.on_before_optimizer_step

    def delayed(lit: LitGPT, optimizer: Any) -> None:
        if lit.trainer.global_step >= after:
            time.sleep(max(0.0, began[0] + seconds - time.monotonic()))
        began[0] = time.monotonic()
        before(lit, optimizer)

    LitGPT.on_before_optimizer_step = delayed  # type: ignore[method-assign]


def record_changes(*, folder: str, to: str) -> None:
    """Write down everything that the kernel is asked to change in a folder: [kind, file] a line, before it is done."""

    def write_down(kind: str, path: str) -> None:
        os.write(record, (json.dumps([kind, os.path.relpath(path, folder)]) + "\n").encode())

    record = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    _watch(Path(folder), write_down)


def send_at_change(*, folder: str, step: int, change: int, signal_name: str = "SIGKILL") -> None:
    """Send this process a signal before the change with that number (from 0), counted from the first of a step's files."""
    seen = -1

    def count(kind: str, path: str) -> None:
        nonlocal seen
        if seen >= 0 or f"step_{step:08d}" in path:
            seen += 1
            if seen == change:
                os.kill(os.getpid(), signal.Signals[signal_name])

    _watch(Path(folder), count)


def die_at_byte(*, folder: str, step: int, byte: int) -> None:
    """Let the kernel kill this process when a step's checkpoint grows beyond so many bytes, in the middle of a write."""

    def limit(kind: str, path: str) -> None:
        if kind == "open" and f"step_{step:08d}" in path:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (byte, byte))

    _watch(Path(folder), limit)


def _watch(folder: Path, tell: Callable[[str, str], None]) -> None:
    """Call `tell(kind, path)` before each change in a folder, whichever function of Python's asks for it."""
    below = f"{folder}{os.sep}"

    def inside(path: Any) -> str | None:
        path = f"{Path(os.fsdecode(path)).absolute()}" if isinstance(path, (str, bytes, os.PathLike)) else ""
        return path if f"{path}{os.sep}".startswith(below) else None

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and (found := inside(path)):
                tell("open", found)
        elif event in _CHANGES:
            found = next(filter(None, map(inside, reversed(arguments[: _CHANGES[event]]))), None)
            if found:
                tell(event.removeprefix("os."), found)

    fsync = os.fsync

    def synced(file: Any) -> None:
        descriptor = file if isinstance(file, int) else file.fileno()
        if found := inside(Path(f"/proc/self/fd/{descriptor}").readlink()):
            tell("fsync", found)
        fsync(file)

    os.fsync = synced
    sys.addaudithook(hook)
