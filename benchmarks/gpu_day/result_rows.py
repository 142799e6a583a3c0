"""The rows of a day on a GPU: measurements and checks, each written to disk at once."""

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

Values = dict[str, Any]


@dataclass(frozen=True)
class Day:
    """What a stage gets, and where its rows go."""

    results: str
    """Path of the JSON Lines file."""
    folder: str
    """Folder for data, runs and logs, the same for all stages."""
    stage: str
    until: float
    """Deadline of the stage, in seconds since the epoch."""
    device: str = "cuda"
    rehearse: bool = False
    """Whether this is a rehearsal with tiny sizes on a null GPU, where values are not checked."""
    nanogpt: str | None = None
    """Folder with nanoGPT's model.py."""

    def seconds_left(self) -> float:
        return self.until - time.time()

    def add(self, row: str, values: Mapping[str, Any]) -> None:
        """Append a row. One with `passed` is a check; one with `skipped` says why there is no measurement."""
        append(Path(self.results), {"stage": self.stage, "row": row, **values})

    def skip(self, row: str, why: str) -> None:
        self.add(row, {"skipped": why})

    def measure(self, row: str, work: Callable[[], Values], *, seconds: float = 1) -> Values | None:
        """Append the result of `work`, or its error. Skip the row if less than `seconds` are left."""
        return self._guarded(row, work, seconds, {})

    def check(self, row: str, work: Callable[[], Values], *, seconds: float = 1) -> Values | None:
        """The same as `measure`, for work whose result has the key `passed`; an error counts as not passed."""
        return self._guarded(row, work, seconds, {"passed": False})

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    def _guarded(self, row: str, work: Callable[[], Values], seconds: float, if_broken: Values) -> Values | None:
        if self.seconds_left() < seconds:
            self.skip(row, "no time is left")
            return None
        begin = time.perf_counter()
        try:
            values = work()
        except TimeoutError:
            self.skip(row, "no time is left")
            return None
        except Exception as error:  # a failing row must not affect the others
            self.add(row, {**if_broken, "error": describe_error(error)})
            return None
        self.add(row, {**values, "took_seconds": round(time.perf_counter() - begin, 2)})
        return values


def describe_error(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300] if lines else ''}"


def append(results: Path, row: Mapping[str, Any]) -> None:
    """Append one row durably. Numbers that JSON does not support become strings."""
    line = json.dumps({key: _plain(value) for key, value in row.items()})
    with results.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())
    print(line, flush=True)


def read_rows(results: Path) -> list[dict[str, Any]]:
    """All complete rows of a file, without torn lines."""
    rows = []
    for line in results.read_text(encoding="utf-8").splitlines() if results.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def failures(rows: list[dict[str, Any]]) -> list[str]:
    """The checks that did not pass, and the stages that broke."""
    return [
        f"{row['stage']}: {row['row']}" + (f" ({row['error']})" if "error" in row else "")
        for row in rows
        if row.get("passed") is False or (row["row"] == "stage" and "error" in row)
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return float(f"{value:.6g}") if isinstance(value, float) else value
