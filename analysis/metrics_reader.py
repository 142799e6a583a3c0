"""Read metrics.jsonl into arrays: the step of every row, and the steps and values of every requested metric.

A long run writes half a million rows of forty metrics. As dicts the rows would take gigabytes, so no row is kept.
"""

from array import array
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from gpt_lightning.jsonl_reader import parse_objects, whole_lines

Series = tuple[np.ndarray, np.ndarray]
"""(steps, values), both (n,)."""

_SHORT = 1 << 21  # bytes; smaller files are parsed without pyarrow
_MOST = 2**53  # steps; a float represents smaller ones exactly


class LoggedMetrics:
    """The rows of a run, each metric as two arrays. If a step has several rows, later ones replace earlier ones.

    Args:
        rows: one dict per row, with `step` and metrics; None for a line that was not a JSON object.
        wanted: which metrics to keep, by name.
    """

    def __init__(self, rows: Iterable[dict[str, Any] | None] = (), *, wanted: Callable[[str], bool] = bool) -> None:
        self.n_unreadable = 0
        """Number of rows without a valid step, or with a metric that is not a number."""
        self._wanted = wanted
        self._steps = array("d")  # of each row
        self._columns: dict[str, _Column] = {}
        self._add_rows(rows)

    @classmethod
    def read(cls, path: Path, *, wanted: Callable[[str], bool] = bool) -> "LoggedMetrics":
        """Read a file; empty if the file does not exist.

        A last line without a newline is skipped, because it is still being written.

        Args:
            path: path of metrics.jsonl.
            wanted: which metrics to keep, by name.
        """
        metrics = cls(wanted=wanted)
        is_short = path.is_file() and path.stat().st_size <= _SHORT
        for block in whole_lines(path):
            if is_short or not metrics._add_block(block):
                metrics._add_rows(parse_objects(block))
        return metrics

    @property
    def n_rows(self) -> int:
        """Number of readable rows."""
        return len(self._steps)

    @property
    def last_step(self) -> int:
        """The largest step; 0 if there is no row."""
        return int(max(self._steps, default=0))

    @property
    def keys(self) -> list[str]:
        """Names of the logged metrics, in order of first occurrence."""
        return [key for key, column in self._columns.items() if column.values]

    def series(self, key: str) -> Series:
        """(steps, values) of a metric, by ascending step; empty if the metric was never logged.

        Args:
            key: name of the metric.

        Returns:
            (steps, values), both (n,).
        """
        if key not in self._columns:
            return np.empty(0), np.empty(0)
        column, steps = self._columns[key], np.frombuffer(self._steps)
        values = np.frombuffer(column.values)
        steps = steps[np.frombuffer(column.rows, dtype=np.int64)] if column.rows else steps[: len(values)]
        if (np.diff(steps) > 0).all():
            return steps, values
        order = np.argsort(steps, kind="stable")
        steps, values = steps[order], values[order]
        last = np.append(np.diff(steps) > 0, True)
        return steps[last], values[last]

    def last(self, key: str) -> float | None:
        """The newest value of a metric; None if the metric was never logged."""
        values = self.series(key)[1]
        return float(values[-1]) if len(values) else None

    def at(self, step: int) -> dict[str, float]:
        """All metrics logged at a step."""
        found = {}
        for key in self._columns:
            steps, values = self.series(key)
            place = np.searchsorted(steps, step)
            if place < len(steps) and steps[place] == step:
                found[key] = float(values[place])
        return found

    def table(self, keys: Iterable[str]) -> Series:
        """(steps, values (metrics, steps)) of several metrics; 0 where a metric was not logged at a step.

        Args:
            keys: names of the metrics.
        """
        of_keys = [self.series(key) for key in keys]
        steps = np.unique(np.concatenate([np.empty(0), *(steps for steps, _ in of_keys)]))
        values = np.zeros((len(of_keys), len(steps)))
        for row, (at, logged) in zip(values, of_keys, strict=True):
            row[np.searchsorted(steps, at)] = logged
        return steps, values

    def _add_rows(self, rows: Iterable[dict[str, Any] | None]) -> None:
        for row in rows:
            metrics = {key: value for key, value in (row or {}).items() if key != "step" and self._wanted(key)}
            step = None if row is None else row.get("step")
            if _is_step(step) and all(value is None or _is_number(value) for value in metrics.values()):
                for key, value in metrics.items():
                    values = [] if value is None else [value]
                    self._add(key, [len(self._steps)] * len(values), values)
                self._steps.append(step)
            else:
                self.n_unreadable += 1

    def _add_block(self, block: bytes) -> bool:
        """Add many whole lines at once. If one of them is not a row as we write it, add none and return False."""
        import pyarrow as pa  # slow to import
        from pyarrow import json as arrow

        one_block = arrow.ReadOptions(use_threads=False, block_size=len(block) + 1)
        try:
            table = arrow.read_json(pa.BufferReader(block), one_block)
        except pa.ArrowInvalid:
            return False
        columns = {key: table.column(key) for key in table.column_names if key == "step" or self._wanted(key)}
        steps = columns.pop("step", None)
        if not len(table) == block.count(b"\n") == block.count(b"}\n"):  # otherwise a line has no object, or two
            return False
        if steps is None or steps.type != pa.int64() or steps.null_count:
            return False
        if not all(column.type in (pa.int64(), pa.float64(), pa.null()) for column in columns.values()):
            return False
        at = steps.to_numpy().astype(float)
        if at.min() < 0 or at.max() >= _MOST:
            return False
        for key, column in columns.items():
            here = len(self._steps) + np.flatnonzero(column.is_valid().to_numpy())
            self._add(key, here, column.drop_null().to_numpy())
        self._steps.frombytes(at.tobytes())
        return True

    def _add(self, key: str, rows: Sequence[int] | np.ndarray, values: Sequence[float] | np.ndarray) -> None:
        column = self._columns.setdefault(key, _Column(array("q"), array("d")))
        if not len(rows):
            return
        n_before, without_gap = len(column.values), int(rows[-1]) + 1 == len(column.values) + len(rows)
        if not (without_gap or column.rows):
            column.rows.frombytes(np.arange(n_before).tobytes())
        if not without_gap or column.rows:
            column.rows.frombytes(np.asarray(rows, dtype=np.int64).tobytes())
        column.values.frombytes(np.asarray(values, dtype=float).tobytes())


class _Column(NamedTuple):
    """Arrays that grow in place. Joining many parts at the end would take twice the memory."""

    rows: "array[int]"
    """Numbers of the rows that have a value; empty while all rows have a value."""
    values: "array[float]"


def _is_step(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63)
