"""End a run that has stopped improving, and record the early end."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch import callbacks as of_lightning

from callbacks.validation_perplexity import ValidationPerplexity
from gpt_lightning.durable_files import write_durably
from gpt_lightning.early_end_file_names import ENDED_EARLY


class EarlyStopping(of_lightning.EarlyStopping):
    """End the run if a validation metric has not improved in the last `patience` validations.

    This is Lightning's callback. Its state is in the checkpoint, so an interrupted run ends at the same step. On
    resume, the settings of the config apply.

    Args:
        monitor: A validation metric as in metrics.jsonl: val/loss/mean, val/perplexity/<source>, ….
        patience: Number of validations without an improvement.
        options: Further arguments of Lightning: min_delta, mode, stopping_threshold, divergence_threshold,
            check_finite.

    Raises:
        ValueError: `patience` is not a positive number, or the run's validation does not measure `monitor`.
    """

    def __init__(self, monitor: str = "val/loss/mean", patience: int = 3, **options: Any) -> None:
        if not isinstance(patience, int) or patience < 1:
            raise ValueError(
                f"callbacks: patience is {patience!r} for EarlyStopping: it must be a number of validations, 1 or more."
            )
        super().__init__(monitor, patience=patience, **options | {"check_on_train_epoch_end": False})

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        if not any(isinstance(watcher, ValidationPerplexity) for watcher in trainer.callbacks):  # type: ignore[attr-defined]
            raise ValueError(
                "callbacks: EarlyStopping needs callbacks.validation, which measures the metric it monitors."
            )
        measured = ValidationPerplexity.names(trainer.datamodule.sources)  # type: ignore[attr-defined]
        if self.monitor not in measured:
            raise ValueError(
                f"callbacks: monitor is {self.monitor!r} for EarlyStopping: it must be one of {', '.join(measured)}."
            )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict | {"patience": self.patience})


class EarlyEndRecorder(L.Callback):
    """Record that a callback has ended the run before its last step, before the checkpoint of that step is saved.

    The run counts as ended if its newest checkpoint is the checkpoint of that step. If the run is killed before this
    checkpoint is saved, it resumes and ends at the same step.

    Args:
        settings: Settings of the run's callbacks. A run with other settings continues.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = settings
        self.why: str | None = None
        """Why the run was ended early; None if it was not ended early."""

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        if trainer.global_step >= trainer.max_steps:
            return
        reasons = [
            watcher.stopping_reason_message
            for watcher in trainer.callbacks  # type: ignore[attr-defined]
            if isinstance(watcher, EarlyStopping)
        ]
        why = next(filter(None, reasons), "a callback has set trainer.should_stop")
        self.why = why.removesuffix(" Signaling Trainer to stop.").rstrip(".")
        if trainer.is_global_zero:
            row = {"step": trainer.global_step, "why": self.why, "callbacks": self._settings}
            write_durably(Path(trainer.default_root_dir) / ENDED_EARLY, row)
