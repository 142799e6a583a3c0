"""Which sequence is trained on when: a pure function of the curriculum, the sources' sizes and the seed.

`locate(i)` maps the global index of a sequence to (source, epoch, sequence) without replaying anything before it:

* Each step has whole numbers of sequences per source. They are scheduled by earliest deadline, so that after every step
  each source has drawn its exact share of the run so far rounded down or up (see `_cumulative_counts`).
* Inside a step the slots are permuted, keyed by (seed, step).
* Inside a source each epoch is a permutation of its sequences, keyed by (seed, source, epoch).

World size, micro-batch size and worker count do not enter: ranks and micro-batches are slices of the global batch.
"""

from bisect import bisect_right
from collections.abc import Mapping

import numpy as np

from data_modules.curriculum import ResolvedCurriculum
from data_modules.permutation import permutation_key, permute

_SHARE_BITS = (
    32  # shares are whole multiples of 2^-32, so that the schedule is integer arithmetic, equal on every machine
)


class SampleOrder:
    """The order of a run's sequences.

    Args:
        curriculum: resolved to the run's length.
        sequences: training sequences of each source of the curriculum.
        global_batch: sequences in one step.
        seed: the run's.

    Raises:
        ValueError: a source is unknown or empty, or the plan needs more epochs of it than the curriculum allows.
    """

    def __init__(
        self, curriculum: ResolvedCurriculum, *, sequences: Mapping[str, int], global_batch: int, seed: int
    ) -> None:
        for source in curriculum.sources:
            if sequences.get(source, 0) < 1:
                raise ValueError(f"source {source} has no training sequence of this length: prepare more of it.")
        self.curriculum = curriculum
        self.sources = curriculum.sources
        self.sequences = {source: sequences[source] for source in self.sources}
        self._lengths = np.array(list(self.sequences.values()), dtype=np.int64)
        self.global_batch = global_batch
        self.seed = seed
        self._counts = _cumulative_counts(curriculum, global_batch)
        self._refuse_exhaustion()

    @property
    def steps(self) -> int:
        return len(self._counts) - 1

    def counts(self, step: int) -> dict[str, int]:
        """Sequences drawn from each source before step `step`."""
        return dict(zip(self.sources, self._counts[step].tolist(), strict=True))

    def locate(self, i: int) -> tuple[str, int, int]:
        """(source, epoch, sequence) of the run's i-th sequence, 0 <= i < steps x global_batch."""
        source, epoch, sequence = self.locate_many(np.array([i]))
        return self.sources[source[0]], int(epoch[0]), int(sequence[0])

    def locate_many(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`locate` for (n,) global indices at once: three (n,) arrays, the source as its index in `sources`."""
        step, slot = np.divmod(indices, self.global_batch)
        if indices.min() < 0 or step.max() >= self.steps:
            raise IndexError(f"sequences {indices.min()} to {indices.max()} lie outside the run's {self.steps} steps")
        slot_keys = np.stack([permutation_key(self.seed, "slots", s) for s in step.tolist()])
        drawn = permute(slot, np.full_like(slot, self.global_batch), slot_keys)
        ends = np.cumsum(
            self._counts[step + 1] - self._counts[step], axis=1
        )  # (n, sources): where each one's slots end
        source = (drawn[:, None] >= ends).sum(axis=1)
        row = np.arange(len(step))
        # how many of its source's sequences are drawn before it in the whole run
        number = self._counts[step + 1][row, source] - ends[row, source] + drawn
        epoch, place = np.divmod(number, self._lengths[source])
        keys = [
            permutation_key(self.seed, self.sources[k], e) for k, e in zip(source.tolist(), epoch.tolist(), strict=True)
        ]
        return source, epoch, permute(place, self._lengths[source], np.stack(keys))

    def _refuse_exhaustion(self) -> None:
        rules = self.curriculum.curriculum
        for k, source in enumerate(self.sources):
            allowed = rules.max_epochs.get(source)
            if allowed is None or rules.on_exhausted != "error":
                continue
            step = bisect_right(self._counts[:, k], allowed * self.sequences[source]) - 1
            if step < self.steps:
                epochs = self._counts[-1, k] / self.sequences[source]
                raise ValueError(
                    f"curriculum.max_epochs.{source} is {allowed}, and the plan draws {epochs:.2f} epochs of it (the limit is "
                    f"reached at step {step} of {self.steps}): lower its weights, prepare more of it, or set "
                    "curriculum.on_exhausted=repeat."
                )


def _cumulative_counts(curriculum: ResolvedCurriculum, global_batch: int) -> np.ndarray:
    """Sequences drawn from each source before each step: (steps + 1, sources) int64; rows grow by `global_batch`.

    Think of the n-th sequence of a source as a job that may be done from the step in which the source's exact share
    exceeds n - 1, and must be done by the step in which it reaches n. Drawing fractions of sequences, exactly as the
    weights say, meets all these windows, so whole sequences can meet them too (the transport polytope is integral), and
    "earliest deadline first" is known to find such a schedule for jobs of equal length. Hence every count is its exact
    share rounded down or up, at every step, however many sources there are and however their weights move. (Taking the
    largest deficit first, without deadlines, can fall behind by the logarithm of the number of sources.)

    A source's count is thus floor(share) or that plus one; only who is ahead by that one has to be scheduled.
    """
    shares = _exact_shares(curriculum, global_batch)
    floors = shares >> _SHARE_BITS
    steps, n_sources = shares.shape
    n_ahead = global_batch * np.arange(1, steps + 1) - floors.sum(axis=1)
    deadlines = _deadlines(shares, floors)
    has_fraction = (shares & ((1 << _SHARE_BITS) - 1)) != 0
    caught_up = np.diff(floors, axis=0, prepend=0) > 0  # what was drawn ahead has become due
    counts = np.zeros((steps + 1, n_sources), dtype=np.int64)
    counts[1:] = floors
    ahead = np.zeros(n_sources, dtype=np.bool_)
    for step in range(steps):
        ahead &= ~caught_up[step]
        missing = int(n_ahead[step]) - int(ahead.sum())
        assert missing >= 0, "earliest deadline first missed a deadline"
        if missing:
            candidates = np.flatnonzero(has_fraction[step] & ~ahead)
            ahead[candidates[np.argsort(deadlines[step, candidates], kind="stable")[:missing]]] = True
        counts[step + 1] += ahead
    return counts


def _exact_shares(curriculum: ResolvedCurriculum, global_batch: int) -> np.ndarray:
    """Sequences due to each source by the end of each step, in units of 2^-32: (steps, sources) int64."""
    weights = curriculum.weights_at(np.arange(curriculum.steps))
    units = np.rint(weights * (1 << _SHARE_BITS)).astype(np.int64)
    largest = units.argmax(axis=1)
    units[np.arange(len(units)), largest] += (1 << _SHARE_BITS) - units.sum(axis=1)  # rounding is the largest one's
    return np.cumsum(units * global_batch, axis=0)


def _deadlines(shares: np.ndarray, floors: np.ndarray) -> np.ndarray:
    """The first later step at which each source's floor grows; past the run, as if its last weights went on for ever."""
    steps = len(shares)
    rates = np.diff(shares, axis=0, prepend=0)[-1]
    missing = ((floors[-1] + 1) << _SHARE_BITS) - shares[-1]
    beyond = np.where(rates > 0, steps - 1 + -(-missing // np.maximum(rates, 1)), np.iinfo(np.int64).max)
    deadlines = np.empty_like(floors)
    for k in range(shares.shape[1]):
        growth = np.flatnonzero(np.diff(floors[:, k], prepend=0))
        following = np.searchsorted(growth, np.arange(steps), side="right")
        deadlines[:, k] = np.append(growth, beyond[k])[following]
    return deadlines
