"""Averages of the weights, which are what validation measures and a checkpoint gives to whoever loads it."""

from typing import Any

import lightning as L
from lightning.pytorch import callbacks as of_lightning

from gpt_lightning.sharding import ShardedStrategy


class WeightAveraging(of_lightning.WeightAveraging):
    """The mean of the weights after every step so far.

    It is Lightning's, for a run that may be interrupted or made longer. Training itself never sees the average: Lightning copies
    it into the weights at the end, before the last checkpoint is saved. And an average that has not begun is not used.

    Args:
        options: Lightning's: device, use_buffers.

    Raises:
        ValueError: in a run, its weights are sharded.
    """

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        if isinstance(trainer.strategy, ShardedStrategy):
            raise ValueError(
                f"callbacks: {type(self).__name__} needs whole weights on each rank: take trainer=ddp, or leave it out."
            )
        if self._device is None:
            self._device = trainer.strategy.root_device  # the model is moved there only later
        super().setup(trainer, pl_module, stage)

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Never at the end of an epoch: a run has one, which would end again if the run was made longer."""
        return step_idx is not None and super().should_update(step_idx=step_idx)

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Nothing: the last checkpoint is like any other."""

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        if self._has_begun:
            super().on_validation_epoch_start(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        if self._has_begun:
            super().on_validation_epoch_end(trainer, pl_module)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        if self._has_begun:
            super().on_save_checkpoint(trainer, pl_module, checkpoint)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        if "averaging_state" in checkpoint:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    @property
    def _has_begun(self) -> bool:
        return self._latest_update_step > 0


class EMAWeightAveraging(WeightAveraging, of_lightning.EMAWeightAveraging):
    """An exponential moving average of the weights.

    Args:
        decay: of the average in a step.
        update_every_n_steps: steps between updates.
        update_starting_at_step: the step, of which the first is 0, after which the average begins; None: the first.
        options: as `WeightAveraging`.

    Raises:
        ValueError: a number is out of range, or the average would begin at an epoch.
    """

    def __init__(
        self,
        decay: float = 0.999,
        update_every_n_steps: int = 1,
        update_starting_at_step: int | None = None,
        **options: Any,
    ) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"callbacks: decay is {decay!r} for EMAWeightAveraging: it must be 0 or more and below 1.")
        if not isinstance(update_every_n_steps, int) or update_every_n_steps < 1:
            raise ValueError(
                f"callbacks: update_every_n_steps is {update_every_n_steps!r} for EMAWeightAveraging: it must be 1 or more."
            )
        if options.pop("update_starting_at_epoch", None) is not None:
            raise ValueError(
                "callbacks: update_starting_at_epoch is set for EMAWeightAveraging, and a run has no epochs: set "
                "update_starting_at_step."
            )
        options |= {"decay": decay, "update_every_n_steps": update_every_n_steps}
        super().__init__(**options, update_starting_at_step=update_starting_at_step)
