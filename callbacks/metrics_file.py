"""metrics.jsonl: one JSON object per logged step, with everything measured at it."""

from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from callbacks.line_file import LineFile


class MetricsFile(Logger):
    """Gathers what the callbacks log of one step into one line, written when the step is over."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.lines = LineFile(path)
        self.row: dict[str, float] = {}
        """What is known so far of the step just done."""

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
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        assert step is not None
        assert self.row.get("step", step) == step, "the row of an earlier step was not written"
        self.row |= {"step": step} | metrics

    @rank_zero_only
    def save(self) -> None:
        """Write the row. Lightning calls this at times of its own; a row is only ever written whole, by `end_step`."""

    @rank_zero_only
    def end_step(self) -> OSError | None:
        """Write the row of the step that is over; why it has to wait, if it has to."""
        failure = self.lines.append_row(self.row) if self.row else None
        self.row = {}
        return failure
