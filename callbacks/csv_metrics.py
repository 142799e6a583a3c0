"""Write metrics.csv, a copy of metrics.jsonl for spreadsheets."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning as L

from callbacks.metrics_row_forwarder import MetricsForwarder
from gpt_lightning.jsonl_reader import iterate_rows
from gpt_lightning.loggers.jsonl_file import JsonlFile
from gpt_lightning.loggers.terminal_and_log_file import ConsoleLogger


class CsvMetrics(MetricsForwarder):
    """Write one row per row of metrics.jsonl and one column per metric. The cell of a metric that a step does not have
    is empty.

    The whole file is rewritten at the first row after each start, and when a row has a new metric.
    """

    def __init__(self) -> None:
        super().__init__()
        self._columns: list[str] = []
        self._lines = JsonlFile(Path())

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._lines = JsonlFile(Path(trainer.default_root_dir) / "metrics.csv")

    def take(self, trainer: L.Trainer, rows: Iterable[dict[str, Any]]) -> None:
        new = list(rows) if self._columns else []
        if self._columns and all(row.keys() <= set(self._columns) for row in new):
            failure = self._lines.append(_table(new, self._columns))
        else:
            failure = self._write_anew()
        ConsoleLogger.of(trainer).complain("metrics.csv", failure)

    def _write_anew(self) -> OSError | None:
        path = self._lines.path
        source, temporary = path.with_suffix(".jsonl"), path.with_name(f".{path.name}.tmp")
        columns = list(dict.fromkeys(key for row in iterate_rows(source) for key in row))
        try:
            with temporary.open("w", encoding="utf-8") as file:
                file.write(",".join(columns) + "\n")
                file.writelines(_table([row], columns) + "\n" for row in iterate_rows(source))
            temporary.replace(path)
        except OSError as error:
            self._columns = []  # try again at the next row
            return error
        self._columns, self._lines = columns, JsonlFile(path)
        return None


def _table(rows: Iterable[dict[str, Any]], columns: list[str]) -> str:
    """Format rows as CSV, without a newline at the end."""
    text = io.StringIO()
    csv.DictWriter(text, columns, lineterminator="\n").writerows(rows)
    return text.getvalue().removesuffix("\n")
