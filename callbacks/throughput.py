"""Speed and memory."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import psutil
import torch

from callbacks.step_callback import StepCallback, log_metrics


class Throughput(StepCallback):
    """Tokens per second of training alone: the time of validation, sampling and saving is left out.

    `speed/tokens_per_s` is the mean since the last time it was logged; memory is the peak so far, in GB (10^9 bytes).
    """

    def __init__(self, *, every: int) -> None:
        super().__init__(every=every)
        self._since = 0.0
        self._tokens = 0
        self._paused = 0.0
        self._pause_began = 0.0

    @staticmethod
    @contextmanager
    def paused(trainer: L.Trainer) -> Iterator[None]:
        """What happens inside does not count as training time, where the run has a Throughput."""
        watching = [c for c in trainer.callbacks if isinstance(c, Throughput)]  # type: ignore[attr-defined]
        for throughput in watching:
            throughput._begin_pause()
        try:
            yield
        finally:
            for throughput in watching:
                throughput._end_pause()

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._since, self._tokens, self._paused = _now(), 0, 0.0

    def on_validation_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._begin_pause()

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._end_pause()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._tokens += batch.targets.numel() * trainer.world_size
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_step(self, trainer: L.Trainer, module: Any) -> None:
        now = _now()
        log_metrics(trainer, {"speed/tokens_per_s": self._tokens / (now - self._since - self._paused)} | _memory())
        self._since, self._tokens, self._paused = now, 0, 0.0

    def _begin_pause(self) -> None:
        self._pause_began = _now()

    def _end_pause(self) -> None:
        self._paused += _now() - self._pause_began


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()  # kernels still under way belong to what came before
    return time.perf_counter()


def _memory() -> dict[str, float]:
    if torch.cuda.is_available():
        return {"memory/gpu_gb": torch.cuda.max_memory_allocated() / 1e9}
    return {"memory/rss_gb": psutil.Process().memory_info().rss / 1e9}
