"""All ranks of a run begin where the first one does."""

from collections.abc import Callable
from typing import Any

import lightning as L
import torch


class StartStepAgreement(L.Callback):
    """Refuses a run whose ranks begin at different steps; they would wait for each other for ever, or train no one run.

    Args:
        step: completed, by the checkpoint that this rank has found.
        begin: what is to be done once they agree, and no rank looks at the run directory any more.

    Raises:
        ValueError: before anything is written or trained, on all ranks.
    """

    def __init__(self, step: int, begin: Callable[[], None]) -> None:
        self._step = step
        self._begin = begin
        self.begun = False

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        step = torch.tensor(self._step, device=trainer.strategy.root_device)  # the model is moved there only later
        first, last = (int(trainer.strategy.reduce(step.clone(), reduce_op=op)) for op in ("min", "max"))
        if first != last:
            raise ValueError(
                f"some ranks would go on after step {first}, others after step {last}: they do not see the same run directory."
            )
        self._begin()
        self.begun = True
