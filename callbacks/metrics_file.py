"""metrics.jsonl: one JSON object per logged step, with everything measured at it."""

import json
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only


class MetricsFile(Logger):
    """Gathers what the callbacks log of one step into one line, written when the step is over."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
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
    def end_step(self) -> None:
        """Write the row of the step that is over."""
        append_row(self.path, self.row)
        self.row = {}


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Add one JSON object as a line; an empty one adds nothing."""
    if row:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def cut_back(path: Path, *, step: int) -> None:
    """Drop the rows after `step`, and a torn last line: the run goes on from there and will write them again."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").split("\n"):  # splitlines would cut at U+2028 too, inside a row
        try:
            row = json.loads(line)
        except ValueError:
            break
        if row["step"] > step:
            break
        kept.append(line + "\n")
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text("".join(kept), encoding="utf-8")
    temporary.replace(path)
