"""Which sequence is trained on when: a pure function of the curriculum, the sources' sizes and the seed.

`locate(i)` maps the global index of a sequence to (source, epoch, sequence) without replaying anything before it:

* Each step has whole numbers of sequences per source (data_modules/schedule.py), so that after every step each source is within
  two sequences of its exact share of the run so far (data_modules/shares.py), however the weights move; in runs of up to 4,096
  steps it is that share rounded down or up.
* Inside a step the slots are permuted, keyed by (seed, step).
* Inside a source each epoch is a permutation of its sequences, keyed by (seed, source, epoch).

World size, micro-batch size and worker count do not enter: ranks and micro-batches are slices of the global batch.

A run may go on with another curriculum, or branch off another run: its order then keeps the first steps of the order before, and
draws on from there, so that no sequence of an epoch comes twice.
"""

import math
from collections.abc import Mapping
from functools import cached_property
from typing import NamedTuple

import numpy as np

from data_modules import schedule
from data_modules.curriculum import ResolvedCurriculum
from data_modules.permutation import permutation_key, permute
from data_modules.shares import ONE, ExactShares, RanOut, spread

_BLOCKS_KEPT = 16


class Located(NamedTuple):
    """Where sequences are, each array (n,) int64."""

    source: np.ndarray  # index into the order's `sources`
    epoch: np.ndarray
    sequence: np.ndarray


class Exhausted(ValueError):
    """The plan asks for more of a source than it may give."""

    def __init__(self, fact: str, *, source: str | None) -> None:
        super().__init__(f"{fact}: lower its weights or prepare more of it; plan.py finds the smallest change.")
        self.fact = fact
        """What is asked for, and where."""
        self.source = source
        """The one whose limit is exceeded; None: all that have weight have ended."""


class SampleOrder:
    """The order of a run's sequences.

    Args:
        curriculum: resolved to the run's length.
        sequences: training sequences of each source of the curriculum, and of those of the order before.
        global_batch: sequences in one step.
        seed: the run's.
        after: the order whose first steps this one keeps, and how many those are; it has the same global batch and seed.

    Raises:
        ValueError: a source is unknown or empty, or is not what it was in the order before.
        Exhausted: the curriculum draws more epochs of a source than it allows.
    """

    def __init__(
        self,
        curriculum: ResolvedCurriculum,
        *,
        sequences: Mapping[str, int],
        global_batch: int,
        seed: int,
        after: "tuple[SampleOrder, int] | None" = None,
    ) -> None:
        self._before: SampleOrder | None
        self._before, self.first_step = after or (None, 0)
        earlier: tuple[str, ...] = self._before.sources if self._before else ()
        self.sources: tuple[str, ...] = (*earlier, *(source for source in curriculum.sources if source not in earlier))
        for source in self.sources:
            if sequences.get(source, 0) < 1:
                raise ValueError(f"source {source} has no training sequence of this length: prepare more of it.")
        self.curriculum = curriculum
        self.steps = curriculum.steps
        self.sequences = {source: sequences[source] for source in self.sources}
        self.global_batch = global_batch
        self.seed = seed
        self._lengths = np.array(list(self.sequences.values()), dtype=np.int64)
        if self._before:
            same = {source: self.sequences[source] for source in earlier} == self._before.sequences
            if not same or (global_batch, seed) != (self._before.global_batch, self._before.seed):
                raise ValueError("an order can only go on with the same global batch, seed and sequences.")
        self._columns = [self.sources.index(source) for source in curriculum.sources]
        self._drawn = np.zeros(len(self.sources), dtype=np.int64)  # before this order began
        if self._before:
            self._drawn[: len(earlier)] = self._before.drawn_before(np.array([self.first_step]))[0]
        self._shares = self._exact_shares()
        self._at_borders = schedule.at_borders(self._shares)
        self._blocks: dict[int, np.ndarray] = {}  # those that were looked at last
        self._refuse_exhaustion()

    @property
    def history(self) -> list["SampleOrder"]:
        """The orders that this one went on from, the oldest first, and itself."""
        return [*(self._before.history if self._before else ()), self]

    def counts(self, step: int) -> dict[str, int]:
        """Sequences drawn from each source before step `step`."""
        return dict(zip(self.sources, self.drawn_before(np.array([step]))[0].tolist(), strict=True))

    def drawn_before(self, steps: np.ndarray) -> np.ndarray:
        """`counts` for many steps: (n,) int -> (n, sources) int64."""
        rows = np.tile(self._drawn, (len(steps), 1))
        block, within = np.divmod(steps - self.first_step, self._shares.block)
        for b in np.unique(block).tolist():
            chosen = np.flatnonzero(block == b)
            if b < 0:
                assert self._before is not None
                rows[chosen] = 0
                rows[chosen, : len(self._before.sources)] = self._before.drawn_before(steps[chosen])
                continue
            inside = within[chosen]
            ends = self._in_block(b) if inside.any() else self._at_borders[b : b + 1]
            rows_of_block = np.concatenate([self._at_borders[b : b + 1], ends])
            rows[chosen[:, None], self._columns] += rows_of_block[inside]
        return rows

    def due(self, step: int) -> dict[str, float]:
        """The exact share of each source before step `step`, in sequences, counted on from what had been drawn when the
        curriculum in force began."""
        if self._before and step < self.first_step:
            return dict.fromkeys(self.sources, 0.0) | self._before.due(step)
        block, within = divmod(step - self.first_step, self._shares.block)
        shares = self._shares.in_block(block)[within - 1] if within else self._shares.at_borders[block]
        total = self._drawn.astype(np.float64)
        total[self._columns] += shares / ONE
        return dict(zip(self.sources, total.tolist(), strict=True))

    def due_between(self, begin: int, end: int) -> dict[str, float]:
        """The exact share of each source in the steps `begin` to `end` - 1, in sequences, whatever curricula were in force."""
        if self._before and begin < self.first_step:
            then = self._before.due_between(begin, min(end, self.first_step))
            if end <= self.first_step:
                return dict.fromkeys(self.sources, 0.0) | then
            return {s: n + then.get(s, 0.0) for s, n in self.due_between(self.first_step, end).items()}
        before = self.due(begin)
        return {source: n - before[source] for source, n in self.due(end).items()}

    def reached(self, source: str, n: int) -> int | None:
        """The number of steps after which `n` sequences of a source are drawn; None: the run draws fewer."""
        k = self.sources.index(source)
        low, high = 0, self.steps
        if self.counts(high)[source] < n:
            return None
        while low < high:
            middle = (low + high) // 2
            if self.drawn_before(np.array([middle]))[0, k] < n:
                low = middle + 1
            else:
                high = middle
        return low

    def locate(self, i: int) -> tuple[str, int, int]:
        """(source, epoch, sequence) of the run's i-th sequence, 0 <= i < steps x global_batch."""
        source, epoch, sequence = self.locate_many(np.array([i]))
        return self.sources[source[0]], int(epoch[0]), int(sequence[0])

    def locate_many(self, indices: np.ndarray) -> Located:
        """`locate` for (n,) global indices at once."""
        if len(indices) and (indices.min() < 0 or indices.max() >= self.steps * self.global_batch):
            raise IndexError(f"sequences {indices.min()} to {indices.max()} lie outside the run's {self.steps} steps")
        step, slot = np.divmod(indices, self.global_batch)
        steps, row = np.unique(step, return_inverse=True)
        slot_keys = np.stack([permutation_key(self.seed, "slots", s) for s in steps.tolist()])
        drawn = permute(slot, np.full_like(slot, self.global_batch), slot_keys[row])
        after = self.drawn_before(steps + 1)
        ends = np.cumsum(after - self.drawn_before(steps), axis=1)  # (steps, sources): where each one's slots end
        source = (drawn[:, None] >= ends[row]).sum(axis=1)
        # how many of its source's sequences are drawn before it in the whole run
        number = after[row, source] - ends[row, source] + drawn
        epoch, place = np.divmod(number, self._lengths[source])
        return Located(source, epoch, self._permuted(source, epoch, place))

    def first_of_epoch(self, source: str, epoch: int, n: int) -> np.ndarray:
        """The first `n` sequences that an epoch draws of a source, (n,) int64."""
        k = np.full(n, self.sources.index(source))
        return self._permuted(k, np.full(n, epoch), np.arange(n))

    def _permuted(self, source: np.ndarray, epoch: np.ndarray, place: np.ndarray) -> np.ndarray:
        """The sequence at each place of an epoch of a source."""
        epochs = int(epoch.max(initial=0)) + 1
        pairs, row = np.unique(source * epochs + epoch, return_inverse=True)
        keys = [permutation_key(self.seed, self.sources[pair // epochs], pair % epochs) for pair in pairs.tolist()]
        return permute(place, self._lengths[source], np.stack(keys)[row])

    def _in_block(self, block: int) -> np.ndarray:
        """Sequences drawn by the end of each step of a block, beyond what was drawn before this order: (steps, sources)."""
        if self._shares.block == 1:
            return self._at_borders[block + 1 : block + 2]
        if block not in self._blocks:
            if len(self._blocks) == _BLOCKS_KEPT:
                del self._blocks[next(iter(self._blocks))]
            before, after = self._at_borders[block : block + 2]
            self._blocks[block] = schedule.in_block(self._shares.in_block(block), before, after)
        return self._blocks[block]

    def _exact_shares(self) -> ExactShares:
        limits = {s: max(0, n - self._drawn[self.sources.index(s)].item()) for s, n in self.limits.items()}
        how = self.curriculum.curriculum.on_exhausted
        common = {"global_batch": self.global_batch, "first_step": self.first_step}
        factors = spread(self.curriculum, **common, limits=limits) if how == "spread" else {}
        binding = limits if how in ("redistribute", "spread") else {}
        try:
            return ExactShares(self.curriculum, **common, limits=binding, factors=factors)
        except RanOut as error:
            raise Exhausted(f"{error} ({self.curriculum.place(error.step)})", source=None) from error

    @cached_property
    def limits(self) -> dict[str, int]:
        """The most sequences of each source that has a limit of epochs, over the whole run."""
        epochs = self.curriculum.curriculum.limits
        # 0.29 x 100 is a little less than 29 in floating point
        return {source: math.floor(round(most * self.sequences[source], 6)) for source, most in epochs.items()}

    def _refuse_exhaustion(self) -> None:
        rules = self.curriculum.curriculum
        if rules.on_exhausted != "error":
            return
        drawn = self.counts(self.steps)
        for source, most in self.limits.items():
            if drawn[source] > most:
                step = self.reached(source, most)
                assert step is not None
                raise Exhausted(
                    f"curriculum.max_epochs.{source} is {rules.limits[source]:g}, and the plan draws "
                    f"{drawn[source] / self.sequences[source]:.2f} epochs of it (the limit is reached after step {step:,} of "
                    f"{self.steps:,}, {self.curriculum.place(step - 1)})",
                    source=source,
                )
