"""Assign sequences to micro-batches: training sequences in the sample order for one rank, and validation sequences.

torch is not imported, because processes that read ahead do not need torch.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from data_modules.order.sample_order import SampleOrder
from data_modules.sequence_reader import RawBatch, SequenceReader
from data_modules.shards.memory_mapped_shards import TokenStream

_LOCATED_AT_ONCE = 4096  # sequences; looking up a few at a time would take as long as reading them


class RankSlice(NamedTuple):
    """How the global batch is divided into micro-batches for one rank."""

    max_seq_len: int  # sequence length in tokens
    micro_batch: int  # sequences in one forward pass on one rank
    rank: int
    world_size: int
    eot_id: int | None  # the id that starts a document, if batches contain document borders


class TrainingBatches:
    """Item b is this rank's b-th micro-batch of the whole run: step b // accumulation, micro-batch b % accumulation.

    Args:
        order: The order of the sequences.
        streams: Training stream of each source of the order.
        borders: Borders of the training sequences of each source.
        cut: How the global batch is divided.
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
        if step >= self.order.steps:  # requested by reading ahead, but never trained on
            step = self.order.steps - 1
        first, found = self._of_steps(step)
        start = (step - first) * self._of_rank + micro * self._cut.micro_batch
        return found.batch(slice(start, start + self._cut.micro_batch))

    def _of_steps(self, step: int) -> tuple[int, SequenceReader]:
        """Return the first of some steps that include this one, and this rank's sequences in them."""
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
    """This rank's share of a source's validation sequences.

    Every rank has the same number of batches; if necessary, a rank gets a batch without loss. Short sequences are
    padded with targets that bear no loss.

    Args:
        stream: The source's validation stream.
        windows: (sequences, 2) [start, stop) of the scored sequences in the stream.
        source_index: Index of the source in the order's sources.
        cut: How batches are divided over ranks.
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
