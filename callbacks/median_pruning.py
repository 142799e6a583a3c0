"""Ending a run of a sweep that others are ahead of."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L

from callbacks.validation_perplexity import ValidationPerplexity
from gpt_lightning.durable_files import write_durably
from gpt_lightning.jsonl import iterate_rows
from gpt_lightning.loggers.jsonl_metrics import JsonlMetrics

PRUNED = "pruned.json"  # in the run directory: after which step, and why


class RunPruned(Exception):
    """The run has ended before its last step, as others were ahead of it: nothing is left to do."""

    def __init__(self, pruned: dict[str, Any]) -> None:
        n_runs = len(pruned["against"])
        super().__init__(
            f"pruned after step {pruned['step']:,}: validation loss {pruned['loss']:.4f} is above {pruned['median']:.4f}, the "
            f"median of {n_runs} run{'s' * (n_runs != 1)} there."
        )


class MedianPruning(L.Callback):
    """Ends the run where its mean validation loss is above the median of other runs after the same step.

    This is the median rule of Vizier (Golovin et al. 2017) as Optuna has it, but for the loss of the step itself in the place of
    the best so far. So the decision follows from what lies in the run directories alone: a run that was interrupted comes to
    the same one.

    Args:
        startup: end nothing before so many runs can be compared with.
        against: the names of their run directories, beside this one; a sweep names those of its runs that are complete.

    Raises:
        ValueError: `startup` is not a positive number, or `against` are no names.
        Pruned: while training.
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
        """As the next step begins: then the metrics of the validated one are on disk."""
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
        """By step, the losses of the other runs."""
        losses: dict[int, list[float]] = {}
        for name in self._against:
            for row in iterate_rows(run.parent / name / "metrics.jsonl", having=b'"val/loss/mean"'):
                if "val/loss/mean" in row:
                    losses.setdefault(row["step"], []).append(row["val/loss/mean"])
        return losses
