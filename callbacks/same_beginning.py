"""All ranks of a run begin where the first one does."""

from typing import Any

import lightning as L
import torch


class SameBeginning(L.Callback):
    """Breaks a run off whose ranks begin at different steps; they would wait for each other for ever, or train no one run.

    Args:
        step: completed, by the checkpoint that this rank has found.

    Raises:
        RuntimeError: before anything is read or trained, on all ranks.
    """

    def __init__(self, step: int) -> None:
        self._step = step

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        step = torch.tensor(self._step, device=pl_module.device)
        first, last = (int(trainer.strategy.reduce(step.clone(), reduce_op=op)) for op in ("min", "max"))
        if first != last:
            raise RuntimeError(
                f"some ranks would go on after step {first}, others after step {last}: they do not see the same run directory."
            )
