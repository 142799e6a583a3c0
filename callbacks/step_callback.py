"""Callbacks that count optimizer steps. (Lightning's hooks count micro-batches.)"""

from collections.abc import Mapping
from typing import Any

import lightning as L
import torch


class StepCallback(L.Callback):
    """Call `on_step` after every `every` steps, never within an accumulation.

    Args:
        every: Number of steps between calls.

    Raises:
        ValueError: `every` is not a positive number of steps.
    """

    def __init__(self, *, every: int) -> None:
        if not isinstance(every, int) or every < 1:
            raise ValueError(
                f"callbacks: every is {every!r} for {type(self).__name__}: it must be a number of steps, 1 or more. "
                "To remove the callback, add ~callbacks.<its name>."
            )
        self.every = every

    def on_step(self, trainer: L.Trainer, module: Any) -> None:
        """Called after `trainer.global_step` completed steps, a multiple of `every`."""

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0 and trainer.global_step % self.every == 0:
            self.on_step(trainer, pl_module)


def log_metrics(trainer: L.Trainer, metrics: Mapping[str, float]) -> None:
    """Pass metrics of the last step to all loggers, and to Lightning callbacks that monitor a metric."""
    for logger in trainer.loggers:
        logger.log_metrics(dict(metrics), step=trainer.global_step)
    trainer.callback_metrics.update({key: torch.tensor(value, dtype=torch.float64) for key, value in metrics.items()})
