"""End a run of a sweep that is worse than the others."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L

from callbacks.validation_perplexity import ValidationPerplexity
from gpt_lightning.durable_files import write_durably
from gpt_lightning.early_end_file_names import PRUNED
from gpt_lightning.jsonl_reader import iterate_rows
from gpt_lightning.loggers.jsonl_metrics import JsonlMetrics


class RunPruned(Exception):
    """The run was ended before its last step because other runs are better. A pruned run counts as complete."""

    def __init__(self, pruned: dict[str, Any]) -> None:
        n_runs = len(pruned["against"])
        super().__init__(
            f"pruned after step {pruned['step']:,}: validation loss {pruned['loss']:.4f} is above "
            f"{pruned['median']:.4f}, the median of {n_runs} run{'s' * (n_runs != 1)} at this step."
        )


class MedianPruning(L.Callback):
    """End the run if its mean validation loss is above the median of other runs at the same step.

    This is the median rule of Vizier (Golovin et al. 2017) as in Optuna, but with the loss of the step instead of the
    best loss so far. The decision depends only on the run directories, so an interrupted run makes the same decision.

    Args:
        startup: Minimum number of runs to compare with.
        against: Names of the other runs' directories, next to this run's. A sweep lists its completed runs.

    Raises:
        ValueError: `startup` is not a positive number, or `against` is not a list of names.
        RunPruned: During training, when the run is pruned.
    """

    def __init__(self, *, startup: int, against: Sequence[str]) -> None:
        if not isinstance(startup, int) or startup < 1:
            raise ValueError(
                f"callbacks: startup is {startup!r} for MedianPruning: it must be a number of runs, 1 or more."
            )
        if isinstance(against, str) or not all(isinstance(name, str) and "/" not in name for name in against):
            raise ValueError(
                f"callbacks: against is {against!r} for MedianPruning: it must be a list of names of run directories."
            )
        self._startup = startup
        self._against = list(against)
        self._losses: dict[int, list[float]] | None = None

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Decide when the next step starts, because the metrics of the validated step are then on disk."""
        step = trainer.global_step
        validation = next((w for w in trainer.callbacks if isinstance(w, ValidationPerplexity)), None)  # type: ignore[attr-defined]
        if validation is None or validation.step != step or step == 0:
            return
        if self._losses is None:
            self._losses = self._read(Path(trainer.default_root_dir))
        losses, loss = self._losses.get(step, []), validation.mean_loss
        if len(losses) < self._startup or loss <= statistics.median(losses):
            return
        pruned = {"step": step, "loss": loss, "median": statistics.median(losses), "against": self._against}
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                if isinstance(logger, JsonlMetrics):
                    logger.lines.sync()
            write_durably(Path(trainer.default_root_dir) / PRUNED, pruned)
        raise RunPruned(pruned)

    def _read(self, run: Path) -> dict[int, list[float]]:
        """Return step -> losses of the other runs."""
        losses: dict[int, list[float]] = {}
        for name in self._against:
            for row in iterate_rows(run.parent / name / "metrics.jsonl", having=b'"val/loss/mean"'):
                if "val/loss/mean" in row:
                    losses.setdefault(row["step"], []).append(row["val/loss/mean"])
        return losses
