"""Log speed, MFU, waiting time for data, and memory."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import psutil
import torch

from analysis.hours_and_loss_from_sizes import NUMBER_FORMATS, peak_flops
from callbacks.step_callback import StepCallback, log_metrics
from gpt_lightning.data_wait_profiler import DataWaitProfiler
from gpt_lightning.model.model_size import flops_per_token


class Throughput(StepCallback):
    """Log the speed since the last logged step.

    `speed/tokens_per_s` counts only the time of training, without validation, sampling and saving. `speed/mfu` is the
    share of the devices' peak FLOP/s that these tokens use (PaLM, arXiv:2204.02311), if the peak is known (not on a
    CPU). `speed/tokens_per_s_overall` counts all elapsed time. `speed/data_wait_share` is the share of training time
    that is spent waiting for data. Memory is in GB (10^9 bytes): on a GPU the maximum allocated so far, on a CPU the
    current size of the process.
    """

    def __init__(self, *, every: int) -> None:
        super().__init__(every=every)
        self._since = 0.0
        self._tokens = 0
        self._paused = 0.0
        self._pause_began = 0.0
        self._waited = 0.0
        self._on_gpu = False
        self._whole_speed: float | None = None  # tokens per second at the devices' peak FLOP/s

    @staticmethod
    @contextmanager
    def paused(trainer: L.Trainer) -> Iterator[None]:
        """Context manager: exclude the time inside from training time, if the run has a Throughput."""
        watching = [c for c in trainer.callbacks if isinstance(c, Throughput)]  # type: ignore[attr-defined]
        for throughput in watching:
            throughput._begin_pause()
        try:
            yield
        finally:
            for throughput in watching:
                throughput._end_pause()

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._on_gpu = pl_module.device.type == "cuda"  # the machine's GPU is ignored if the run does not use it
        device = torch.cuda.get_device_name(pl_module.device) if self._on_gpu else "CPU"
        peak = peak_flops(device, NUMBER_FORMATS[str(trainer.precision)])
        if peak:
            self._whole_speed = peak * trainer.world_size / flops_per_token(pl_module.model)
        self._begin(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._begin_pause()

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._end_pause()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._tokens += batch.targets.numel() * trainer.world_size
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_step(self, trainer: L.Trainer, module: Any) -> None:
        seconds = self._now() - self._since
        training = seconds - self._paused
        speed = self._tokens / training
        metrics = {"speed/tokens_per_s": speed, "speed/tokens_per_s_overall": self._tokens / seconds}
        if self._whole_speed:
            metrics["speed/mfu"] = speed / self._whole_speed
        metrics["speed/data_wait_share"] = (_waited(trainer) - self._waited) / training
        log_metrics(trainer, metrics | self._memory())
        self._begin(trainer)

    def _begin(self, trainer: L.Trainer) -> None:
        self._since, self._tokens, self._paused, self._waited = self._now(), 0, 0.0, _waited(trainer)

    def _begin_pause(self) -> None:
        self._pause_began = self._now()

    def _end_pause(self) -> None:
        self._paused += self._now() - self._pause_began

    def _now(self) -> float:
        if self._on_gpu:
            torch.cuda.synchronize()  # kernels still running belong to the period before
        return time.perf_counter()

    def _memory(self) -> dict[str, float]:
        if self._on_gpu:
            return {"memory/gpu_gb": torch.cuda.max_memory_allocated() / 1e9}
        return {"memory/rss_gb": psutil.Process().memory_info().rss / 1e9}


def _waited(trainer: L.Trainer) -> float:
    """Return the seconds that this rank has waited for data so far."""
    clock: Any = trainer.profiler  # type: ignore[attr-defined]
    return clock.seconds if isinstance(clock, DataWaitProfiler) else 0.0
