"""Logged steps in columns. A million steps take 150 MB; a dict for each would take a GB."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from analysis.metrics_reader import Series

VALUES = ("loss", "lr", "tokens_per_s", "gpu_gb", "elapsed_s")
_WHOLE = {"tokens_per_s", "elapsed_s"}  # whole numbers
_TIME = len("2025-11-18 07:15:06")


class StepTable:
    """One entry per step. If several lines have the same step, the one with the latest timestamp counts.

    Events after a line belong to the line's entry, and are replaced together with the entry.
    """

    def __init__(self) -> None:
        self._rows: dict[int, int] = {}  # step -> index of its entry, in the order of their first lines
        self._times = bytearray()
        self._values = array("d")  # VALUES of the first entry, of the second, …
        self._saved: dict[int, str] = {}  # place -> checkpoint
        self._removed: dict[int, str] = {}
        self._interrupted: set[int] = set()
        self.n_lines = 0
        """Number of lines of steps, including replaced ones."""

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, step: int, time: bytes, values: Sequence[float]) -> int | None:
        """Add the line of a step.

        Args:
            step: number of the step.
            time: YYYY-MM-DD hh:mm:ss.
            values: one for each of VALUES; nan: unknown.

        Returns:
            Index of the entry, for later events; None if a line with a later timestamp is known for this step.
        """
        self.n_lines += 1
        place = self._rows.setdefault(step, len(self._rows))
        if place * _TIME == len(self._times):
            self._times += time
            self._values.extend(values)
            return place
        before = self._time(place)
        if time < before:
            return None
        if time > before:
            self._times[place * _TIME : (place + 1) * _TIME] = time
            self._saved.pop(place, None)
            self._removed.pop(place, None)
            self._interrupted.discard(place)
        self._values[place * len(VALUES) : (place + 1) * len(VALUES)] = array("d", values)
        return place

    def set_saved(self, place: int, checkpoint: str) -> None:
        """Record that a checkpoint was saved after an entry.

        Args:
            place: index of the entry, from `add`.
            checkpoint: path of the checkpoint.
        """
        self._saved[place] = checkpoint

    def set_removed(self, place: int, checkpoint: str) -> None:
        """Record that a checkpoint was removed after an entry.

        Args:
            place: index of the entry, from `add`.
            checkpoint: path of the checkpoint.
        """
        self._removed[place] = checkpoint

    def set_interrupted(self, place: int) -> None:
        """Record that the run was interrupted after an entry.

        Args:
            place: index of the entry, from `add`.
        """
        self._interrupted.add(place)

    def set_gone_on(self, resumes: Iterable[tuple[int, bytes]]) -> None:
        """Record that the run resumed after a step, at a time: the last entry before was interrupted.

        Args:
            resumes: (step, time) of each resume.
        """
        order = self._order()
        steps = self._steps()[order]
        for step, time in resumes:
            n = int(np.searchsorted(steps, step, side="right"))
            place = next((place for place in map(int, order[:n][::-1]) if self._time(place) <= time), None)
            if place is not None:
                self._interrupted.add(place)

    def series(self, name: str) -> Series:
        """Return the steps and values, both (n,), of `name` (one of VALUES), without steps where the value is not
        finite.
        """
        order = self._order()
        steps, values = self._steps()[order], self._table()[order, VALUES.index(name)]
        finite = np.isfinite(values)
        return steps[finite].astype(float), values[finite]

    @property
    def saved(self) -> list[int]:
        """Steps with a checkpoint."""
        return sorted(self._steps()[list(self._saved)].tolist())

    @property
    def interrupted(self) -> list[int]:
        """Steps after which the run was interrupted."""
        return sorted(self._steps()[list(self._interrupted)].tolist())

    @property
    def days(self) -> tuple[str, str]:
        """The first and the last day."""
        days = np.unique(self._all_times().astype("S10"))
        return days[0].decode(), days[-1].decode()

    def columns(self, *, most: int) -> Iterator[dict[str, list[Any]]]:
        """Yield the entries, ordered by step, as dicts of columns. Unknown and infinite values are None.

        Args:
            most: largest number of entries in one dict.
        """
        order, times, steps, table = self._order(), self._all_times(), self._steps(), self._table()
        for start in range(0, len(order), most):
            places = order[start : start + most]
            values = zip(VALUES, table[places].T, strict=True)
            at = places.tolist()
            yield {
                "timestamp": times[places].astype(f"U{_TIME}").tolist(),
                "step": steps[places].tolist(),
                **{name: _known(column, whole=name in _WHOLE) for name, column in values},
                "checkpoint_saved": [self._saved.get(place) for place in at],
                "checkpoint_removed": [self._removed.get(place) for place in at],
                "interrupted": [place in self._interrupted for place in at],
            }

    def _time(self, place: int) -> bytes:
        return bytes(self._times[place * _TIME : (place + 1) * _TIME])

    def _all_times(self) -> np.ndarray:
        return np.frombuffer(self._times, dtype=f"S{_TIME}")

    def _table(self) -> np.ndarray:
        return np.frombuffer(self._values).reshape(-1, len(VALUES))

    def _steps(self) -> np.ndarray:
        """Steps by index of their entry (dicts keep insertion order)."""
        return np.fromiter(self._rows, dtype=np.int64, count=len(self._rows))

    def _order(self) -> np.ndarray:
        """Indices of the entries, by step."""
        return np.argsort(self._steps())


def _known(values: np.ndarray, *, whole: bool) -> list[Any]:
    finite = np.isfinite(values)
    known = np.where(finite, values, 0).astype(np.int64 if whole else float).astype(object)
    known[~finite] = None
    return list(known)
