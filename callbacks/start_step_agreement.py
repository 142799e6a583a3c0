"""Check that all ranks of a run start from the same step."""

from collections.abc import Callable
from typing import Any

import lightning as L
import torch


class StartStepAgreement(L.Callback):
    """Refuse a run whose ranks start from different steps. Such ranks would wait for each other forever, or train
    inconsistently.

    Args:
        step: Completed steps of the checkpoint that this rank has found.
        begin: Called once the ranks agree and no rank reads the run directory any more.

    Raises:
        ValueError: The steps differ. This error is raised on all ranks, before anything is written or trained.
    """

    def __init__(self, step: int, begin: Callable[[], None]) -> None:
        self._step = step
        self._begin = begin
        self.begun = False

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        step = torch.tensor(self._step, device=trainer.strategy.root_device)  # the model is not on this device yet
        first, last = (int(trainer.strategy.reduce(step.clone(), reduce_op=op)) for op in ("min", "max"))
        if first != last:
            raise ValueError(
                f"ranks found checkpoints of different steps, {first} to {last}: they must see the same run "
                "directory. Use a shared file system."
            )
        self._begin()
        self.begun = True
