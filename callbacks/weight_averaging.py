"""Averages of the weights, which are used for validation and when a checkpoint is loaded as a model."""

from typing import Any

import lightning as L
from lightning.pytorch import callbacks as of_lightning

from gpt_lightning.sharding import ShardedStrategy


class WeightAveraging(of_lightning.WeightAveraging):
    """The mean of the weights over all steps so far.

    This is Lightning's callback, adapted to runs that are interrupted or extended. Training never uses the average;
    Lightning would copy it into the weights at the end, before the last checkpoint is saved. An average without an
    update yet is not used either.

    Args:
        options: Arguments of Lightning's callback: `device`, where the average is stored (default: the model's device),
            and `use_buffers`, whether buffers are averaged too (default: True).

    Raises:
        ValueError: At the start of a run, if the weights are sharded.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        if isinstance(trainer.strategy, ShardedStrategy):
            raise ValueError(
                f"callbacks: {type(self).__name__} needs whole weights on each rank: use trainer=ddp, or remove the "
                "callback."
            )
        if self._device is None:
            self._device = trainer.strategy.root_device  # the model is not on this device yet
        super().setup(trainer, pl_module, stage)

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Update after steps only. (A run is one epoch of Lightning. The epoch would end a second time if the run is
        extended.)
        """
        return step_idx is not None and super().should_update(step_idx=step_idx)

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Do not copy the average into the weights: the last checkpoint is like any other."""

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
        decay: Factor of the old average in each update, from 0 to below 1.
        update_every_n_steps: Number of steps between updates.
        update_starting_at_step: Step (0 is the first) after which the average starts; None: the first.
        options: See `WeightAveraging`.

    Raises:
        ValueError: A number is out of range, or `update_starting_at_epoch` is set.
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
                f"callbacks: update_every_n_steps is {update_every_n_steps!r} for EMAWeightAveraging: it must be 1 or "
                "more."
            )
        if options.pop("update_starting_at_epoch", None) is not None:
            raise ValueError(
                "callbacks: update_starting_at_epoch is set for EMAWeightAveraging: it must be null, because a run "
                "has no epochs. Set update_starting_at_step."
            )
        options |= {"decay": decay, "update_every_n_steps": update_every_n_steps}
        super().__init__(**options, update_starting_at_step=update_starting_at_step)
