"""metrics.jsonl: one JSON object per logged step, with all metrics of that step."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from gpt_lightning.loggers.jsonl_file import JsonlFile

_OF_LIGHTNING = ("step", "epoch")  # keys that Lightning adds; a run has one epoch, and a row has its own step


class JsonlMetrics(Logger):
    """Collect what is logged during a step into one row, and write it when the step is complete.

    Lightning's and users' callbacks count steps differently, so the step passed to `log_metrics` is ignored: everything
    logged belongs to the current step.

    Args:
        path: The file to append to.
        done: Number of completed steps.
    """

    def __init__(self, path: Path, *, done: int = 0) -> None:
        super().__init__()
        self.lines = JsonlFile(path)
        self.row: dict[str, float] = {}
        """Metrics logged so far in the current step, or, between two steps, in the last step."""
        self.step = done + 1
        """Number of the current step, from 1."""

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: config.yaml in the run directory has the settings."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        self.row |= {"step": self.step} | metrics_logger_only(metrics)

    @rank_zero_only
    def save(self) -> None:
        """Do nothing. Lightning calls this at arbitrary times; `end_step` writes each row as a whole."""

    @rank_zero_only
    def end_step(self, step: int) -> OSError | None:
        """Write the row of the completed step and start the next row. Returns the error if the row cannot be written
        yet.
        """
        failure = self.lines.append_row(self.row) if self.row else None
        self.row, self.step = {}, step + 1
        return failure


def metrics_logger_only(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Convert metrics to plain numbers, without the keys that Lightning adds."""
    return {
        key: value.item() if hasattr(value, "item") else value
        for key, value in metrics.items()
        if key not in _OF_LIGHTNING
    }
