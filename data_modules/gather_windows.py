"""Windows of arrays that lie in parts, joined to batches with as few steps as there can be.

The parts of a stream are its shards. Where a window lies is looked up for thousands at a time; what is left for a batch is one
concatenation of slices.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np


class ConcatenatedArrays:
    """One long array that lies in parts."""

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        self.parts = list(parts)
        self.starts = np.array([0, *accumulate(map(len, parts))])
        """Where each part begins, and the end."""

    def read(self, start: int, stop: int) -> np.ndarray:
        """A copy of what lies from `start` to `stop`."""
        return WindowGatherer([self], np.zeros(1, dtype=np.int64), np.array([start]), np.array([stop])).join(
            slice(None)
        )


class WindowGatherer:
    """Windows of some arrays, each filled up with zeros where a length is given.

    Args:
        arrays: those that the windows are of.
        of: (windows,) index of each one's array.
        starts: (windows,) where each begins,
        stops: and ends.
        length: what each is filled up to; None: as they are.
    """

    def __init__(
        self,
        arrays: Sequence[ConcatenatedArrays],
        of: np.ndarray,
        starts: np.ndarray,
        stops: np.ndarray,
        length: int | None = None,
    ) -> None:
        parts = [part for array in arrays for part in array.parts]
        first = np.empty(len(of), dtype=np.int64)  # the part in which a window begins
        begins = np.empty(len(of), dtype=np.int64)  # of that part
        n_before = 0
        for k, array in enumerate(arrays):
            chosen = np.flatnonzero(of == k)
            part = np.searchsorted(array.starts, starts[chosen], side="right") - 1
            first[chosen], begins[chosen] = part + n_before, array.starts[part]
            n_before += len(array.parts)
        padding = np.zeros(length or 0, dtype=np.bool_)
        missing = (length - (stops - starts) if length is not None else np.zeros_like(stops)).tolist()
        self._slices: list[np.ndarray] = []  # one list, as thousands of small ones keep the garbage collector busy
        self._ends = [0]  # of each window among them
        where = zip(first.tolist(), (starts - begins).tolist(), (stops - begins).tolist(), missing, strict=True)
        for n, start, stop, n_missing in where:
            self._slices.append(parts[n][start:stop])
            while stop > len(parts[n]):
                stop -= len(parts[n])
                n += 1
                self._slices.append(parts[n][:stop])
            if n_missing:
                self._slices.append(padding[:n_missing])
            self._ends.append(len(self._slices))

    def join(self, windows: slice, dtype: Any = None) -> np.ndarray:
        """Some windows, one after the other in one array, (tokens,)."""
        begin, end, _ = windows.indices(len(self._ends) - 1)
        joined = np.concatenate(self._slices[self._ends[begin] : self._ends[end]])
        return joined if dtype is None else joined.astype(dtype)  # faster than while they are joined
