"""Callbacks with which verify.py records the data of a run, and kills the run."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any
from zlib import crc32

import lightning as L
import numpy as np


class SampleOrderLog(L.Callback):
    """Write a line for every sequence given to the model, to `diet/<time>_rank<n>.jsonl` for each start and rank.

    A line is [index, source, start, crc32]: the index of the sequence in the run, computed from step, rank and
    micro-batch; the position of the sequence's first target in the source's stream; and the checksum of the inputs,
    targets and mask that the model received.
    """

    def __init__(self) -> None:
        self._path = Path()

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        folder = Path(trainer.default_root_dir) / "diet"
        folder.mkdir(exist_ok=True)
        self._path = folder / f"{time.time_ns()}_rank{trainer.global_rank}.jsonl"

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        order = trainer.datamodule.order  # type: ignore[attr-defined]
        micro = batch_idx % trainer.accumulate_grad_batches
        n = len(batch.sources)
        first = trainer.global_step * order.global_batch
        first += (trainer.global_rank * trainer.accumulate_grad_batches + micro) * n
        ids, targets = (values.cpu().numpy() for values in (batch.token_ids, batch.targets))
        mask = np.ones_like(targets, dtype=np.bool_) if batch.mask is None else batch.mask.cpu().numpy()
        with self._path.open("a", encoding="utf-8") as file:
            for row, (k, start) in enumerate(zip(batch.sources.tolist(), batch.starts.tolist(), strict=True)):
                checksum = crc32(ids[row].tobytes() + targets[row].tobytes() + mask[row].tobytes())
                file.write(json.dumps([first + row, order.sources[k], start, checksum]) + "\n")


class KillAtStep(L.Callback):
    """Kill the process with SIGKILL, like a power failure, in step `at` (0 is the first) of a run's first start."""

    def __init__(self, *, at: int) -> None:
        self._at = at
        self._first_start = False

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._first_start = trainer.global_step == 0

    def on_before_zero_grad(self, trainer: L.Trainer, pl_module: Any, optimizer: Any) -> None:
        if self._first_start and trainer.global_step == self._at:
            os.kill(os.getpid(), signal.SIGKILL)
