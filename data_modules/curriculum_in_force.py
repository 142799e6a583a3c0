"""A part of a run in which one curriculum is in force, and what has been drawn of each source at any step of it.

A run is a row of segments: one for the curriculum that it was begun with, one more for each change of it, be it the user's or an
update of the weights. Each counts on from the whole sequences that were drawn before it.

Weights that are updated often would round a rare source away if each update began with nothing owed: 0.4 sequences a segment
are none in every segment. So an update carries on what each source is owed, its exact share less what was drawn, as long as
whole sequences can meet it: who knew nothing of the weights to come may have promised more to some sources than the next steps
have room for. Then as much of it is carried as there is room for: half, a quarter, …
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from data_modules import apportionment
from data_modules.curriculum import ResolvedCurriculum
from data_modules.exact_shares import ONE, SHARE_BITS, ExactShares, spread_over_sources

_BLOCKS_KEPT = 16


class CurriculumSegment:
    """One curriculum, from a step of the run on.

    Args:
        curriculum: resolved; its length is where the segment ends.
        first_step: of the segment.
        sequences: training sequences of each source that has been drawn from, or is in the curriculum.
        global_batch: sequences in one step.
        drawn: (sources,) int64, sequences of each before the first step, in the order of `sequences`.
        owed: (sources,) int64, what each was due by then and has not got, in 2^-32 sequences, adding up to 0; None: nothing.

    Raises:
        SourceRanOut: no source that has weight has anything left at some step.
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
        # 0.29 x 100 is a little less than 29 in floating point
        self.limits = {
            source: math.floor(round(most * sequences[source], 6))
            for source, most in curriculum.curriculum.limits.items()
        }
        """The most sequences of each source that has a limit of epochs, over the whole run."""
        self._left = {s: max(0, n - drawn[names.index(s)].item()) for s, n in self.limits.items()}
        self._schedule(np.zeros(len(names), dtype=np.int64) if owed is None else owed)
        self._blocks: dict[int, np.ndarray] = {}  # those that were looked at last

    def drawn_before(self, steps: np.ndarray) -> np.ndarray:
        """Sequences drawn from each source before each of the steps, which lie in the segment: (n,) int -> (n, sources) int64."""
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
        """The exact share of each source before a step of the segment, beyond `drawn`: (sources,) int64, in 2^-32 sequences."""
        block, within = divmod(step - self.first_step, self.shares.block)
        due = np.zeros(len(self.drawn), dtype=np.int64)
        due[self._columns] = self.shares.in_block(block)[within - 1] if within else self.shares.at_borders[block]
        return due

    def owed(self) -> np.ndarray:
        """What each source is due by the end of the segment and has not got: (sources,) int64, in 2^-32 sequences."""
        drawn = self.drawn_before(np.array([self.end]))[0] - self.drawn
        return self.due_before(self.end) - (drawn << SHARE_BITS)

    def _schedule(self, owed: np.ndarray) -> None:
        """Settle the shares and the whole sequences, with as much of what is owed as can be met."""
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
        """Sequences drawn by the end of each step of a block, beyond what was drawn before the segment: (steps, sources)."""
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
    """Half of what is owed, still adding up to 0; less than 2^-16 sequences are nothing."""
    half = np.where(owed < 0, -(-owed >> 1), owed >> 1)
    if np.abs(half).max() < ONE >> 16:
        return np.zeros_like(owed)
    half[np.abs(half).argmax()] -= half.sum()
    return half
