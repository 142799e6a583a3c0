"""metrics.jsonl: one JSON object per logged step, with everything measured at it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from gpt_lightning.loggers.jsonl_file import JsonlFile

_OF_LIGHTNING = ("step", "epoch")  # which it adds to metrics: a run has one epoch, and a row its own step


class JsonlMetrics(Logger):
    """Gathers what is logged while a step is made into one line, written when the step is over.

    Callbacks of Lightning's and of users count steps in ways of their own: all that is logged belongs to the step being made.

    Args:
        path: the file.
        done: steps that are completed.
    """

    def __init__(self, path: Path, *, done: int = 0) -> None:
        super().__init__()
        self.lines = JsonlFile(path)
        self.row: dict[str, float] = {}
        """What is known so far of the step being made, or just done."""
        self.step = done + 1
        """Its number; the first is 1."""

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run directory's config.yaml has them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        self.row |= {"step": self.step} | metrics_logger_only(metrics)

    @rank_zero_only
    def save(self) -> None:
        """Write the row. Lightning calls this at times of its own; a row is only ever written whole, by `end_step`."""

    @rank_zero_only
    def end_step(self, step: int) -> OSError | None:
        """Write the row of the step that is over, and begin the next; why it has to wait, if it has to."""
        failure = self.lines.append_row(self.row) if self.row else None
        self.row, self.step = {}, step + 1
        return failure


def metrics_logger_only(metrics: Mapping[str, Any]) -> dict[str, float]:
    """As plain numbers, without what Lightning adds."""
    return {
        key: value.item() if hasattr(value, "item") else value
        for key, value in metrics.items()
        if key not in _OF_LIGHTNING
    }
