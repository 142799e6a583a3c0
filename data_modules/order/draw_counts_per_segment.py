"""A segment of a run in which one curriculum applies, and how much of each source has been drawn at any of the
segment's steps.

A run consists of segments: one for its first curriculum, and one more for each change of the curriculum, by
the user or by an update of the mix weights. Each segment continues from the whole sequences drawn before it.

If frequent updates each started without a carry, a rare source would be rounded to nothing: 0.4 sequences per segment
would be 0 in every segment. So an update carries over what each source is still due: its exact share minus the whole
sequences drawn. This must be feasible with whole sequences. The earlier segment did not know the later weights, so it
may have left more due to some sources than the next steps have room for. Then only a part is carried over: half, a
quarter, …
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from data_modules.order import apportionment
from data_modules.order.curriculum import ResolvedCurriculum
from data_modules.order.exact_shares import ONE, SHARE_BITS, ExactShares, spread_over_sources

_BLOCKS_KEPT = 16


class CurriculumSegment:
    """One curriculum, from a certain step on.

    Args:
        curriculum: Resolved; its length is the end of the segment.
        first_step: First step of the segment.
        sequences: Number of training sequences of each source that was drawn from before or is in the curriculum.
        global_batch: Number of sequences per step.
        drawn: (sources,) int64, sequences drawn before the first step, in the order of `sequences`.
        owed: (sources,) int64, the carry: what each source was due before the first step but did not get, in 2^-32
            sequences; the sum is 0. None: no carry.

    Raises:
        SourceRanOut: At some step, no source with weight has sequences left.
    """

    def __init__(
        self,
        curriculum: ResolvedCurriculum,
        *,
        first_step: int,
        sequences: Mapping[str, int],
        global_batch: int,
        drawn: np.ndarray,
        owed: np.ndarray | None = None,
    ) -> None:
        self.curriculum = curriculum
        self.first_step = first_step
        self.end = curriculum.steps
        self.drawn = drawn
        self._global_batch = global_batch
        names = list(sequences)
        self._columns = [names.index(source) for source in curriculum.sources]
        # rounded, because 0.29 x 100 is slightly less than 29 in floating point
        self.limits = {
            source: math.floor(round(most * sequences[source], 6))
            for source, most in curriculum.curriculum.limits.items()
        }
        """Maximum number of sequences over the whole run, for each source with a limit of epochs."""
        self._left = {s: max(0, n - drawn[names.index(s)].item()) for s, n in self.limits.items()}
        self._schedule(np.zeros(len(names), dtype=np.int64) if owed is None else owed)
        self._blocks: dict[int, np.ndarray] = {}  # cache of recently used blocks

    def drawn_before(self, steps: np.ndarray) -> np.ndarray:
        """Return the sequences drawn from each source before steps of the segment: (n,) int -> (n, sources) int64."""
        rows = np.tile(self.drawn, (len(steps), 1))
        block, within = np.divmod(steps - self.first_step, self.shares.block)
        for b in np.unique(block).tolist():
            chosen = np.flatnonzero(block == b)
            inside = within[chosen]
            ends = self._in_block(b) if inside.any() else self._at_borders[b : b + 1]
            rows_of_block = np.concatenate([self._at_borders[b : b + 1], ends])
            rows[chosen[:, None], self._columns] += rows_of_block[inside]
        return rows

    def due_before(self, step: int) -> np.ndarray:
        """Return the exact share of each source before a step: (sources,) int64, in units of 2^-32 sequences.

        The share counts from the start of the segment, so it does not include `drawn`.
        """
        block, within = divmod(step - self.first_step, self.shares.block)
        due = np.zeros(len(self.drawn), dtype=np.int64)
        due[self._columns] = self.shares.in_block(block)[within - 1] if within else self.shares.at_borders[block]
        return due

    def owed(self) -> np.ndarray:
        """Return the carry at the end of the segment, see `owed` above: (sources,) int64, in 2^-32 sequences."""
        drawn = self.drawn_before(np.array([self.end]))[0] - self.drawn
        return self.due_before(self.end) - (drawn << SHARE_BITS)

    def _schedule(self, owed: np.ndarray) -> None:
        """Compute exact shares and whole sequences, with as much of the carry as is feasible."""
        binds = self.curriculum.curriculum.on_exhausted in ("redistribute", "spread")
        left = self._left if binds else {}
        room = np.array([float(left.get(source, np.inf)) for source in self.curriculum.sources])
        while True:
            carried = owed[self._columns]
            if carried.sum() == 0 and (carried <= room * ONE).all():
                self.shares = self._exact_shares(left, carried)
                borders = apportionment.apportion_at_block_ends(self.shares)
                if borders is not None:
                    self._at_borders = borders
                    return
            assert owed.any(), "earliest deadline first found no schedule where nothing is owed"
            owed = _halved(owed)

    def _in_block(self, block: int) -> np.ndarray:
        """Return the sequences drawn by the end of each step of a block, beyond `drawn`: (steps, sources) int64."""
        if self.shares.block == 1:
            return self._at_borders[block + 1 : block + 2]
        if block not in self._blocks:
            if len(self._blocks) == _BLOCKS_KEPT:
                del self._blocks[next(iter(self._blocks))]
            before, after = self._at_borders[block : block + 2]
            self._blocks[block] = apportionment.apportion_within_block(self.shares.in_block(block), before, after)
        return self._blocks[block]

    def _exact_shares(self, limits: Mapping[str, int], owed: np.ndarray) -> ExactShares:
        common: dict[str, Any] = {
            "global_batch": self._global_batch,
            "first_step": self.first_step,
            "limits": limits,
        }
        spreads = self.curriculum.curriculum.on_exhausted == "spread"
        factors = spread_over_sources(self.curriculum, **common) if spreads else {}
        return ExactShares(self.curriculum, **common, factors=factors, owed=owed)


def _halved(owed: np.ndarray) -> np.ndarray:
    """Halve the carry, keeping its sum at 0; a carry below 2^-16 sequences becomes 0."""
    half = np.where(owed < 0, -(-owed >> 1), owed >> 1)
    if np.abs(half).max() < ONE >> 16:
        return np.zeros_like(owed)
    half[np.abs(half).argmax()] -= half.sum()
    return half
