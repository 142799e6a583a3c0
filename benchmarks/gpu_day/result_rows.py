"""The rows of a day at a GPU: measurements and checks, each on disk the moment it is made."""

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
    """What a stage is given, and where its rows go."""

    results: str
    """The file of JSON lines."""
    folder: str
    """A folder for data, runs and logs, the same for all stages."""
    stage: str
    until: float
    """The stage's deadline, in seconds since the epoch."""
    device: str = "cuda"
    rehearse: bool = False
    """Tiny sizes, on a GPU that computes nothing: no value is judged."""
    nanogpt: str | None = None
    """A folder with nanoGPT's model.py."""

    def seconds_left(self) -> float:
        return self.until - time.time()

    def add(self, row: str, values: Mapping[str, Any]) -> None:
        """Append a row. One with `passed` is a check; one with `skipped` says why it was not measured."""
        append(Path(self.results), {"stage": self.stage, "row": row, **values})

    def skip(self, row: str, why: str) -> None:
        self.add(row, {"skipped": why})

    def measure(self, row: str, work: Callable[[], Values], *, seconds: float = 1) -> Values | None:
        """Append what `work` gives, or its error; skip the row where the time is over, or too little is left for `seconds`."""
        return self._guarded(row, work, seconds, {})

    def check(self, row: str, work: Callable[[], Values], *, seconds: float = 1) -> Values | None:
        """As `measure`, of a work whose values hold `passed`: an error has not passed."""
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
        except Exception as error:  # one row that cannot be made must not lose the others
            self.add(row, {**if_broken, "error": describe_error(error)})
            return None
        self.add(row, {**values, "took_seconds": round(time.perf_counter() - begin, 2)})
        return values


def describe_error(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300] if lines else ''}"


def append(results: Path, row: Mapping[str, Any]) -> None:
    """Append one row durably; numbers that JSON does not have become words."""
    line = json.dumps({key: _plain(value) for key, value in row.items()})
    with results.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())
    print(line, flush=True)


def read_rows(results: Path) -> list[dict[str, Any]]:
    """All whole rows of a file; a line that a crash tore is left out."""
    rows = []
    for line in results.read_text(encoding="utf-8").splitlines() if results.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def failures(rows: list[dict[str, Any]]) -> list[str]:
    """The checks that did not pass, and the stages that broke before theirs were made."""
    return [
        f"{row['stage']}: {row['row']}" + (f" ({row['error']})" if "error" in row else "")
        for row in rows
        if row.get("passed") is False or (row["row"] == "stage" and "error" in row)
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return float(f"{value:.6g}") if isinstance(value, float) else value
