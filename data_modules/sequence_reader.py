"""Sequences of one micro-batch, read from the shards. torch is not needed here, so processes that read ahead do without it."""

from typing import NamedTuple

import numpy as np

from data_modules.gather_windows import WindowGatherer
from data_modules.memory_mapped_shards import TokenStream


class RawBatch(NamedTuple):
    """A micro-batch as it is read; `data_modules.batch.to_tensors` makes of it what a training step is given."""

    ids: np.ndarray  # (batch, time + 1) uint16 or uint32: the inputs and, shifted by one, the targets
    mask: np.ndarray | None  # (batch, time) bool: does the target bear loss? None: all of them do
    sources: np.ndarray  # (batch,) int64, index into the order's sources
    starts: np.ndarray  # (batch,) int64, where the targets begin in the source's stream
    borders: np.ndarray | None  # (documents + 1,) int32, see `document_borders`; None: documents see each other


class SequenceReader:
    """Sequences that are looked up already, so that a batch of them is one copy.

    Args:
        streams: the sources' streams.
        sources: (sequences,) index of each one's stream.
        windows: (sequences, 2) where its targets begin and end in it; what they lack to `max_seq_len` is padding.
        max_seq_len: tokens in a sequence.
        masked: whether batches have a mask.
        eot_id: the id that stands before a document, where batches have borders; None: they have none.
    """

    def __init__(
        self,
        streams: list[TokenStream],
        sources: np.ndarray,
        windows: np.ndarray,
        max_seq_len: int,
        *,
        masked: bool,
        eot_id: int | None,
    ) -> None:
        self._sources = sources
        self._eot_id = eot_id
        self._starts, stops = np.ascontiguousarray(windows.T)
        self._length = max_seq_len + 1  # the inputs and, shifted by one, the targets
        ids = [stream.ids for stream in streams]
        self._ids = WindowGatherer(
            ids, sources, self._starts, stops + 1, self._length
        )  # ids begin one position earlier
        masks = [stream.mask for stream in streams]
        self._mask = WindowGatherer(masks, sources, self._starts, stops, max_seq_len) if masked else None

    def batch(self, rows: slice) -> RawBatch:
        """Some of the sequences."""
        ids = self._ids.join(rows).reshape(-1, self._length)
        return RawBatch(
            ids=ids,
            mask=None if self._mask is None else self._mask.join(rows).reshape(-1, self._length - 1),
            sources=self._sources[rows],
            starts=self._starts[rows],
            borders=None if self._eot_id is None else document_borders(ids[:, :-1], self._eot_id),
        )


def document_borders(token_ids: np.ndarray, eot_id: int) -> np.ndarray:
    """Where each document begins in the flattened batch, and the end; (documents + 1,) int32.

    A document begins with its end-of-text id or with its sequence. Documents of no tokens fill up the tail, so that compiled code
    meets one shape: there is room for one document per 64 tokens, and where a batch has more, for the next power of two.
    """
    batch, time = token_ids.shape
    begins = token_ids == eot_id
    begins[:, 0] = True
    starts = np.flatnonzero(begins)
    room = batch + max(1, batch * time // 64)
    while room < len(starts):
        room *= 2
    borders = np.full(room + 1, batch * time, dtype=np.int32)
    borders[: len(starts)] = starts
    return borders
