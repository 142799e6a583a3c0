"""Exact number of sequences of each source due by every step, as integer multiples of 2^-32 sequence.

Integers make the schedule equal on every machine. Only the shares at the borders of blocks of steps are stored. The
shares in between are recomputed when needed, at the same cost anywhere in a run.
"""

from collections.abc import Mapping

import numpy as np

from data_modules.order.curriculum import ResolvedCurriculum

SHARE_BITS = 32
ONE = 1 << SHARE_BITS
_NO_LIMIT = np.iinfo(np.int64).max
_AT_ONCE = 16_384  # steps computed at a time
_BLOCKS = 4096  # maximum number of blocks; shorter runs have blocks of one step


class SourceRanOut(ValueError):
    """At some step, no source with weight has sequences left."""

    def __init__(self, step: int) -> None:
        super().__init__(f"at step {step:,} no source with weight has sequences left")
        self.step = step


class ExactShares:
    """Exact shares due by the end of each step, from `first_step` to the end of the run.

    Args:
        curriculum: Resolved to the run's length.
        global_batch: Number of sequences per step.
        first_step: Where counting starts.
        limits: Maximum number of sequences from `first_step` on, for sources with a limit. When a source reaches its
            limit, the rest of its share goes to the other sources, by weight.
        factors: Constant factors of the weights of some sources.
        owed: (sources,) int64, what each source is due when counting starts; the sum is 0. None: nothing.

    Raises:
        SourceRanOut: At some step, nothing is left to draw.
        ValueError: The run has too many sequences to count.
    """

    def __init__(
        self,
        curriculum: ResolvedCurriculum,
        *,
        global_batch: int,
        first_step: int = 0,
        limits: Mapping[str, int],
        factors: Mapping[str, float],
        owed: np.ndarray | None = None,
    ) -> None:
        if curriculum.steps * global_batch >= 1 << (63 - SHARE_BITS):
            raise ValueError(
                f"the run has {curriculum.steps:,} steps of {global_batch:,} sequences: it must have fewer than 2^31 "
                "sequences."
            )
        self.first_step = first_step
        self.steps = curriculum.steps
        self._curriculum = curriculum
        self._global_batch = global_batch
        most = curriculum.steps * global_batch
        bounds = [limits.get(source, most) for source in curriculum.sources]
        self._limits = np.array([_NO_LIMIT if n >= most else n << SHARE_BITS for n in bounds], dtype=np.int64)
        self._factors = np.array([factors.get(source, 1.0) for source in curriculum.sources])
        self.block = max(1, -(-(self.steps - first_step) // _BLOCKS))  # steps
        self.borders = np.append(np.arange(first_step, self.steps, self.block), self.steps)
        """Steps at which blocks start and end."""
        self.at_borders = np.zeros((len(self.borders), len(curriculum.sources)), dtype=np.int64)
        """(borders, sources): shares due before that step."""
        self.at_borders[0] = 0 if owed is None else owed
        per_piece = max(1, _AT_ONCE // self.block)  # blocks
        for begin in range(0, len(self.borders) - 1, per_piece):
            end = min(begin + per_piece, len(self.borders) - 1)
            rows = self._advance(self.at_borders[begin], self.borders[begin], self.borders[end])
            self.at_borders[begin + 1 : end + 1] = rows[self.borders[begin + 1 : end + 1] - self.borders[begin] - 1]

    def in_block(self, block: int) -> np.ndarray:
        """Return the shares due by the end of each step of a block: (steps, sources) int64."""
        if self.block == 1:
            return self.at_borders[block + 1 : block + 2]
        return self._advance(self.at_borders[block], self.borders[block], self.borders[block + 1])

    def last_rates(self) -> np.ndarray:
        """Return the shares of the last step alone, (sources,) int64."""
        ends = np.concatenate([self.at_borders[-2:-1], self.in_block(len(self.borders) - 2)])
        rates: np.ndarray = ends[-1] - ends[-2]
        return rates

    def _advance(self, due: np.ndarray, begin: int, end: int) -> np.ndarray:
        """Return the shares due by the end of steps `begin` to `end` - 1, given `due` before them."""
        weights = self._curriculum.weights_at(np.arange(begin, end))
        rows = np.empty(weights.shape, dtype=np.int64)
        done = 0
        while done < len(rows):
            has_left = due < self._limits
            units = self._units(weights[done:], has_left, begin + done)
            rows[done:] = due + np.cumsum(units * self._global_batch, axis=0)
            beyond = np.flatnonzero((rows[done:] > self._limits).any(axis=1))
            if not len(beyond):
                break
            done += int(beyond[0])
            due = self._across_a_limit(rows[done - 1] if beyond[0] else due, weights[done], begin + done)
            rows[done] = due
            done += 1
        return rows

    def _units(self, weights: np.ndarray, has_left: np.ndarray, step: int) -> np.ndarray:
        """Convert (steps, sources) weights to multiples of 2^-32; each row sums to 1. Exhausted sources get 0."""
        if not has_left.all() or (self._factors != 1).any():
            weights = np.where(has_left, weights * self._factors, 0.0)
            total = sum(weights.T)  # in a fixed order, so that the sum is equal on every machine
            if not np.all(total > 0):
                raise SourceRanOut(step + int(np.argmin(total > 0)))
            weights = weights / np.asarray(total)[:, None]
        units = np.rint(weights * ONE).astype(np.int64)
        largest = units.argmax(axis=1)
        units[np.arange(len(units)), largest] += ONE - units.sum(axis=1)  # the largest absorbs the rounding error
        return units

    def _across_a_limit(self, due: np.ndarray, weights: np.ndarray, step: int) -> np.ndarray:
        """Compute a step in which a source reaches its limit: the rest of its share goes to the others, by weight."""
        due = due.copy()
        missing = self._global_batch * ONE
        while missing:
            units = [int(unit) for unit in self._units(weights[None], due < self._limits, step)[0]]
            parts = [missing * unit >> SHARE_BITS for unit in units]
            parts[int(np.argmax(units))] += missing - sum(parts)
            for k, part in enumerate(parts):
                part = min(part, int(self._limits[k]) - int(due[k]))
                due[k] += part
                missing -= part
        return due


def spread_over_sources(
    curriculum: ResolvedCurriculum, *, global_batch: int, first_step: int, limits: Mapping[str, int]
) -> dict[str, float]:
    """Compute factors of the weights with which every limited source lasts to the end (UniMax, arXiv:2304.09151).

    The factors are computed on a grid of steps and rounded to 24 bits, so that they are equal on every machine. Because
    of the grid, a source may reach its limit slightly early or not quite; `ExactShares` handles both.
    """
    steps = np.unique(np.linspace(first_step, curriculum.steps - 1, 2048).astype(np.int64))
    weights = curriculum.weights_at(steps)
    room = np.array([limits.get(s, np.inf) for s in curriculum.sources]) / (
        global_batch * (curriculum.steps - first_step)
    )
    factors = np.ones(len(room))
    for _ in range(200):
        scaled = weights * factors
        total = np.asarray(sum(scaled.T))[:, None]  # in a fixed order, so that the sum is equal on every machine
        shares = np.divide(scaled, total, out=np.zeros_like(scaled), where=total > 0).mean(axis=0)  # of the run
        with np.errstate(over="ignore"):  # a share close to 0
            factors = np.minimum(1.0, factors * np.divide(room, shares, out=np.ones_like(room), where=shares > 0))
        factors /= factors.max() or 1.0
    fraction, exponent = np.frexp(factors)
    factors = np.ldexp(np.rint(fraction * 2.0**24) / 2.0**24, exponent)
    return dict(zip(curriculum.sources, factors.tolist(), strict=True))
