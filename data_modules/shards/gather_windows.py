"""Read windows of arrays that consist of parts, and join the windows to batches with as few operations as possible.

The parts of a stream are its shards. The positions of thousands of windows are looked up at a time; a batch then takes
one concatenation of slices.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np


class ConcatenatedArrays:
    """One long array that consists of parts."""

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        self.parts = list(parts)
        self.starts = np.array([0, *accumulate(map(len, parts))])
        """Start of each part, and the end of the last."""

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return a copy of the elements from `start` to `stop`."""
        return WindowGatherer([self], np.zeros(1, dtype=np.int64), np.array([start]), np.array([stop])).join(
            slice(None)
        )


class WindowGatherer:
    """Windows of several arrays, padded with zeros if a length is given.

    Args:
        arrays: The arrays.
        of: (windows,) index of each window's array.
        starts: (windows,) start of each window.
        stops: (windows,) end of each window.
        length: Length to which windows are padded; None: no padding.
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
        first = np.empty(len(of), dtype=np.int64)  # the part in which a window starts
        begins = np.empty(len(of), dtype=np.int64)  # the start of that part
        n_before = 0
        for k, array in enumerate(arrays):
            chosen = np.flatnonzero(of == k)
            part = np.searchsorted(array.starts, starts[chosen], side="right") - 1
            first[chosen], begins[chosen] = part + n_before, array.starts[part]
            n_before += len(array.parts)
        padding = np.zeros(length or 0, dtype=np.bool_)
        missing = (length - (stops - starts) if length is not None else np.zeros_like(stops)).tolist()
        self._slices: list[np.ndarray] = []  # one list, because thousands of small ones slow down garbage collection
        self._ends = [0]  # end of each window in this list
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
        """Concatenate some windows, (tokens,)."""
        begin, end, _ = windows.indices(len(self._ends) - 1)
        joined = np.concatenate(self._slices[self._ends[begin] : self._ends[end]])
        return joined if dtype is None else joined.astype(dtype)  # faster than converting during concatenation
