"""Which sequences are in which micro-batch: the order's, cut for a rank; and those that a source is validated with.

torch is not needed here, so processes that read ahead do without it.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from data_modules.memory_mapped_shards import TokenStream
from data_modules.sample_order import SampleOrder
from data_modules.sequence_reader import RawBatch, SequenceReader

_LOCATED_AT_ONCE = 4096  # sequences: looking up a few at a time would cost as much as reading them


class RankSlice(NamedTuple):
    """How sequences are cut into micro-batches for one rank."""

    max_seq_len: int  # tokens in a sequence
    micro_batch: int  # sequences in one forward pass on one rank
    rank: int
    world_size: int
    eot_id: int | None  # the id that stands before a document, where batches say where their documents begin


class TrainingBatches:
    """Item b is this rank's b-th micro-batch of the whole run: step b // accumulation, micro-batch b % accumulation.

    Args:
        order: of the sequences.
        streams: the training stream of each source of the order.
        borders: where the training sequences of each of them begin and end.
        cut: how the global batch is cut.
    """

    def __init__(
        self, order: SampleOrder, streams: Sequence[TokenStream], borders: Sequence[np.ndarray], cut: RankSlice
    ) -> None:
        self.order = order
        self._streams = list(streams)
        self._borders = list(borders)
        self._cut = cut
        self._of_rank = order.global_batch // cut.world_size
        self._accumulation = self._of_rank // cut.micro_batch
        self._found: tuple[range, SequenceReader] | None = None

    def __getitem__(self, b: int) -> RawBatch:
        step, micro = divmod(b, self._accumulation)
        if step >= self.order.steps:  # read ahead, never trained on
            step = self.order.steps - 1
        first, found = self._of_steps(step)
        start = (step - first) * self._of_rank + micro * self._cut.micro_batch
        return found.batch(slice(start, start + self._cut.micro_batch))

    def _of_steps(self, step: int) -> tuple[int, SequenceReader]:
        """The first of some steps around this one, and what this rank is trained on in them."""
        n_steps = max(1, _LOCATED_AT_ONCE // self._of_rank)
        first = step - step % n_steps
        steps = range(first, min(first + n_steps, self.order.settled))
        if self._found is None or self._found[0] != steps:
            slots = np.arange(self._of_rank) + self._cut.rank * self._of_rank
            located = self.order.locate_many(np.add.outer(np.array(steps) * self.order.global_batch, slots).ravel())
            windows = np.empty((len(located.source), 2), dtype=np.int64)
            for k, borders in enumerate(self._borders):
                chosen = np.flatnonzero(located.source == k)
                sequence = located.sequence[chosen]
                windows[chosen, 0], windows[chosen, 1] = borders[sequence], borders[sequence + 1]
            found = SequenceReader(
                self._streams,
                located.source,
                windows,
                self._cut.max_seq_len,
                masked=self._masked,
                eot_id=self._cut.eot_id,
            )
            self._found = (steps, found)
        return first, self._found[1]

    @cached_property
    def _masked(self) -> bool:
        return any(stream.masked for stream in self._streams)


class ValidationBatches:
    """This rank's share of a source's validation sequences: every rank has as many batches, if need be one without loss.

    Sequences that are too short are filled up with targets that bear no loss.

    Args:
        stream: the source's validation stream.
        windows: (sequences, 2) where the sequences that are scored begin and end in it.
        source_index: of the source in the order's sources.
        cut: how they are cut.
    """

    def __init__(self, stream: TokenStream, windows: np.ndarray, source_index: int, cut: RankSlice) -> None:
        self._stream = stream
        self._windows = windows
        self._source_index = source_index
        self._cut = cut

    def __len__(self) -> int:
        return -(-len(self._windows) // (self._cut.micro_batch * self._cut.world_size))

    def __getitem__(self, b: int) -> RawBatch:
        start = (b * self._cut.world_size + self._cut.rank) * self._cut.micro_batch
        chosen = self._windows[start : start + self._cut.micro_batch]
        blank = len(chosen) == 0
        if blank:
            chosen = self._windows[:1]
        of_the_one = np.zeros(len(chosen), dtype=np.int64)
        reader = SequenceReader(
            [self._stream], of_the_one, chosen, self._cut.max_seq_len, masked=True, eot_id=self._cut.eot_id
        )
        batch = reader.batch(slice(None))
        assert batch.mask is not None
        return batch._replace(
            sources=np.full_like(batch.sources, self._source_index),
            mask=np.zeros_like(batch.mask) if blank else batch.mask,
        )
