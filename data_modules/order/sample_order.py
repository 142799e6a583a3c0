"""Which sequence is trained on when: a pure function of the curriculum, the sources' sizes and the seed.

`locate(i)` maps the global index of a sequence to (source, epoch, sequence) without replaying anything before it:

* Each step has whole numbers of sequences per source (data_modules/order/apportionment.py). After every step, each
  source is within two sequences of its exact share of the run so far (data_modules/order/exact_shares.py), however the
  weights change. In runs of up to 4,096 steps, the number of sequences is the exact share rounded down or up.
* Within a step, the slots are permuted, keyed by (seed, step).
* Within a source, each epoch is a permutation of its sequences, keyed by (seed, source, epoch).

World size, micro-batch size and worker count have no effect: ranks and micro-batches are slices of the global batch.

A run may continue with another curriculum, or branch off another run. Its order then keeps the first steps of the
earlier order and continues from there, so that no sequence of an epoch comes twice. The same holds when weights are
updated (data_modules/order/ado.py): the order is settled up to the next update, and assumes no further updates.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from functools import cached_property
from typing import NamedTuple

import numpy as np

from data_modules.order.curriculum import ResolvedCurriculum
from data_modules.order.draw_counts_per_segment import CurriculumSegment
from data_modules.order.exact_shares import ONE, SourceRanOut
from data_modules.order.keyed_permutation import permutation_key, permute


class SampleLocation(NamedTuple):
    """Locations of sequences; each array is (n,) int64."""

    source: np.ndarray  # index into the order's `sources`
    epoch: np.ndarray
    sequence: np.ndarray


class SourceExhaustedError(ValueError):
    """The plan needs more of a source than the curriculum allows."""

    def __init__(self, fact: str, *, source: str | None) -> None:
        super().__init__(f"{fact}: lower the weights or prepare more data; plan.py finds the smallest change.")
        self.fact = fact
        """What the plan needs, and where."""
        self.source = source
        """The source whose limit is exceeded; None: all sources with weight are exhausted."""


MixWeightUpdate = tuple[int, Mapping[str, float]]
"""(step, mix weights of all sources): the weights that apply from this step on."""


class SampleOrder:
    """The order of a run's sequences.

    Args:
        curriculum: Resolved to the run's length.
        sequences: Number of training sequences of each source in the curriculum and in the earlier order.
        global_batch: Number of sequences per step.
        seed: Seed of the run.
        after: (earlier order, number of its steps to keep). Both orders must have the same global batch and seed.
        updates: For a curriculum that follows the losses: the weights that replace the curriculum's, in order of steps.

    Raises:
        ValueError: A source is unknown or empty, its size differs in the earlier order, or the updates do not fit.
        SourceExhaustedError: The curriculum draws more epochs of a source than its limit.
    """

    def __init__(
        self,
        curriculum: ResolvedCurriculum,
        *,
        sequences: Mapping[str, int],
        global_batch: int,
        seed: int,
        after: "tuple[SampleOrder, int] | None" = None,
        updates: Sequence[MixWeightUpdate] = (),
    ) -> None:
        before, self.first_step = after or (None, 0)
        earlier: tuple[str, ...] = before.sources if before else ()
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
        if before:
            same = {source: self.sequences[source] for source in earlier} == before.sequences
            if not same or (global_batch, seed) != (before.global_batch, before.seed):
                raise ValueError("global batch, seed and sequences must equal those of the order that is continued.")
        self.history: tuple[SampleOrder, ...] = (*(before.history if before else ()), self)
        """The orders that this order continues, oldest first, and this order."""
        self.updates: tuple[MixWeightUpdate, ...] = ()
        """Updates so far of the curriculum of this order."""
        drawn = np.zeros(len(self.sources), dtype=np.int64)  # before this order starts
        if before:
            assert self.first_step <= before.settled, "an order continues from settled steps"
            drawn[: len(earlier)] = before.drawn_before(np.array([self.first_step]))[0]
        past = [one for one in before._settled if one.first_step < self.first_step] if before else []
        if updates and updates[0][0] == self.first_step:
            self.updates, updates = (updates[0],), updates[1:]
        self._settled: list[CurriculumSegment] = [*past, self._segment(self._weights(), self.first_step, drawn)]
        for step, weights in updates:
            self._update(step, weights)
        self._refuse_exhaustion()

    def updated(self, step: int, weights: Mapping[str, float]) -> "SampleOrder":
        """Return this order with other weights from step `step` on, which must equal `settled`.

        Raises:
            ValueError: The weights name other sources, or `step` is not `settled`.
        """
        order = copy(self)
        order.__dict__.pop("_ahead", None)
        order.history = (*self.history[:-1], order)
        order._settled = list(self._settled)
        order._update(step, weights)
        return order

    @property
    def settled(self) -> int:
        """Number of steps before the next update, which no update can change."""
        return self._settled[-1].end

    def counts(self, step: int) -> dict[str, int]:
        """Return the number of sequences drawn from each source before a step."""
        return dict(zip(self.sources, self.drawn_before(np.array([step]))[0].tolist(), strict=True))

    def drawn_before(self, steps: np.ndarray) -> np.ndarray:
        """Return `counts` for many steps: (n,) int -> (n, sources) int64."""
        rows = np.zeros((len(steps), len(self.sources)), dtype=np.int64)
        numbers = self._numbers(steps)
        for number in np.unique(numbers).tolist():
            chosen = np.flatnonzero(numbers == number)
            drawn = self._at(number).drawn_before(steps[chosen])
            rows[chosen, : drawn.shape[1]] = drawn
        return rows

    def due(self, step: int) -> dict[str, float]:
        """Return the exact share of each source before a step, in sequences. After a change of the curriculum, the
        share counts from the sequences drawn before the change; after an update, also from the carry."""
        segment = self._at(int(self._numbers(np.array([step]))[0]))
        due = segment.drawn + segment.due_before(step) / ONE
        return dict.fromkeys(self.sources, 0.0) | dict(zip(self.sources, due.tolist(), strict=False))

    def due_between(self, begin: int, end: int) -> dict[str, float]:
        """Return the exact share of each source in the steps `begin` to `end` - 1, in sequences, over all curricula."""
        total = np.zeros(len(self.sources), dtype=np.int64)
        first, last = self._numbers(np.array([begin, end])).tolist()
        for number in range(first, last + 1):
            segment = self._at(number)
            until = end if number == last else self._at(number + 1).first_step
            grown = segment.due_before(until) - segment.due_before(max(begin, segment.first_step))
            total[: len(grown)] += grown
        return dict(zip(self.sources, (total / ONE).tolist(), strict=True))

    def stretches(self) -> list[tuple[int, dict[str, float]]]:
        """Return (number of steps, mean share of each source) of each settled period of the curriculum, in order."""
        own = [segment for segment in self._settled if segment.first_step >= self.first_step]
        ends = [*(segment.first_step for segment in own[1:]), self.settled]
        found = []
        for segment, end in zip(own, ends, strict=True):
            steps = end - segment.first_step
            grown = (segment.due_before(end) - segment.due_before(segment.first_step)) / (
                ONE * steps * self.global_batch
            )
            shares = dict.fromkeys(self.sources, 0.0) | dict(zip(self.sources, grown.tolist(), strict=False))
            found.append((steps, shares))
        return found

    def reached(self, source: str, n: int) -> int | None:
        """Return the number of steps after which `n` sequences of a source are drawn; None if the run draws fewer."""
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
        """Return (source, epoch, sequence) of the run's i-th sequence, 0 <= i < steps x global_batch."""
        source, epoch, sequence = self.locate_many(np.array([i]))
        return self.sources[source[0]], int(epoch[0]), int(sequence[0])

    def locate_many(self, indices: np.ndarray) -> SampleLocation:
        """Return `locate` for (n,) global indices."""
        if len(indices) and (indices.min() < 0 or indices.max() >= self.steps * self.global_batch):
            raise IndexError(f"sequences {indices.min()} to {indices.max()} are outside the run's {self.steps} steps")
        step, slot = np.divmod(indices, self.global_batch)
        steps, row = np.unique(step, return_inverse=True)
        slot_keys = np.stack([permutation_key(self.seed, "slots", s) for s in steps.tolist()])
        drawn = permute(slot, np.full_like(slot, self.global_batch), slot_keys[row])
        after = self.drawn_before(steps + 1)
        ends = np.cumsum(after - self.drawn_before(steps), axis=1)  # (steps, sources): end of each source's slots
        source = (drawn[:, None] >= ends[row]).sum(axis=1)
        # number of sequences drawn from its source before it in the whole run
        number = after[row, source] - ends[row, source] + drawn
        epoch, place = np.divmod(number, self._lengths[source])
        return SampleLocation(source, epoch, self._permuted(source, epoch, place))

    def first_of_epoch(self, source: str, epoch: int, n: int) -> np.ndarray:
        """Return the first `n` sequences that an epoch draws from a source, (n,) int64."""
        k = np.full(n, self.sources.index(source))
        return self._permuted(k, np.full(n, epoch), np.arange(n))

    def _permuted(self, source: np.ndarray, epoch: np.ndarray, place: np.ndarray) -> np.ndarray:
        """Return the sequence at each place of an epoch of a source."""
        epochs = int(epoch.max(initial=0)) + 1
        pairs, row = np.unique(source * epochs + epoch, return_inverse=True)
        keys = [permutation_key(self.seed, self.sources[pair // epochs], pair % epochs) for pair in pairs.tolist()]
        return permute(place, self._lengths[source], np.stack(keys)[row])

    @property
    def limits(self) -> dict[str, int]:
        """Maximum number of sequences over the whole run, for each source with a limit of epochs."""
        return self._settled[-1].limits

    @cached_property
    def _ahead(self) -> CurriculumSegment:
        """The segment after the next update, as if there were no update."""
        return self._segment(self._weights(), self.settled, *self._handed_on(), until=self.steps)

    def _numbers(self, steps: np.ndarray) -> np.ndarray:
        """Return the index of each step's segment; the end of the last settled segment belongs to it."""
        begins = [segment.first_step for segment in self._settled]
        return np.searchsorted([*begins, self.settled + 1], steps, side="right") - 1

    def _at(self, number: int) -> CurriculumSegment:
        return self._settled[number] if number < len(self._settled) else self._ahead

    def _update(self, step: int, weights: Mapping[str, float]) -> None:
        if step != self.settled or step == self.steps:
            raise ValueError(
                f"step of the update is {step:,}: it must be {self.settled:,}, the step of the next update."
            )
        handed_on = self._handed_on()
        self.updates = (*self.updates, (step, weights))
        self._settled.append(self._segment(self._weights(), step, *handed_on))

    def _weights(self) -> Mapping[str, float] | None:
        """Return the last updated weights; None: the curriculum's own."""
        return self.updates[-1][1] if self.updates else None

    def _handed_on(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the sequences drawn from each source at the end of the settled steps, and the carry."""
        last = self._settled[-1]
        return last.drawn_before(np.array([last.end]))[0], last.owed()

    def _segment(
        self,
        weights: Mapping[str, float] | None,
        first_step: int,
        drawn: np.ndarray,
        owed: np.ndarray | None = None,
        *,
        until: int | None = None,
    ) -> CurriculumSegment:
        """Make the segment from a step to the next update, or to `until` if given."""
        ado = self.curriculum.curriculum.ado
        end = until or (ado.next_update(first_step, steps=self.steps) if ado else self.steps)
        curriculum = self.curriculum if end == self.steps and weights is None else self.curriculum.held(weights, end)
        try:
            return CurriculumSegment(
                curriculum,
                first_step=first_step,
                sequences=self.sequences,
                global_batch=self.global_batch,
                drawn=drawn,
                owed=owed,
            )
        except SourceRanOut as error:
            raise SourceExhaustedError(f"{error} ({self.curriculum.place(error.step)})", source=None) from error

    def _refuse_exhaustion(self) -> None:
        rules = self.curriculum.curriculum
        if not self.limits:
            return
        drawn = self.counts(self.steps)
        if rules.on_exhausted != "error":
            return
        for source, most in self.limits.items():
            if drawn[source] > most:
                step = self.reached(source, most)
                assert step is not None
                raise SourceExhaustedError(
                    f"curriculum.max_epochs.{source} is {rules.limits[source]:g}, and the plan draws "
                    f"{drawn[source] / self.sequences[source]:.2f} epochs of it (the limit is reached after step "
                    f"{step:,} of {self.steps:,}, {self.curriculum.place(step - 1)})",
                    source=source,
                )
