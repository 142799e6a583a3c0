"""Read the sequences of a micro-batch from the shards. torch is not imported, because processes that read ahead do not
need torch.
"""

from typing import NamedTuple

import numpy as np

from data_modules.shards.gather_windows import WindowGatherer
from data_modules.shards.memory_mapped_shards import TokenStream


class RawBatch(NamedTuple):
    """A micro-batch as read from the shards; `data_modules.batch.to_tensors` converts it to a `Batch`."""

    ids: np.ndarray  # (batch, time + 1) uint16 or uint32: inputs [:, :-1] and targets [:, 1:]
    mask: np.ndarray | None  # (batch, time) bool: whether the target bears loss; None: all targets do
    sources: np.ndarray  # (batch,) int64, index into the order's sources
    starts: np.ndarray  # (batch,) int64, position of the first target in the source's stream
    borders: np.ndarray | None  # (documents + 1,) int32, see `document_borders`; None: documents are not separated


class SequenceReader:
    """Sequences whose positions are already known, so that reading a batch takes one copy.

    Args:
        streams: The token streams of the sources.
        sources: (sequences,) index of each sequence's stream.
        windows: (sequences, 2) [start, stop) of the sequence's targets in the stream; shorter sequences are padded to
            `max_seq_len`.
        max_seq_len: Sequence length in tokens.
        masked: Whether batches have a mask.
        eot_id: The id that starts a document, if batches have document borders; None: no borders.
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
        self._length = max_seq_len + 1  # inputs and targets overlap, shifted by one
        ids = [stream.ids for stream in streams]
        self._ids = WindowGatherer(
            ids, sources, self._starts, stops + 1, self._length
        )  # the ids start one position earlier
        masks = [stream.mask for stream in streams]
        self._mask = WindowGatherer(masks, sources, self._starts, stops, max_seq_len) if masked else None

    def batch(self, rows: slice) -> RawBatch:
        """Return the given sequences as a batch."""
        ids = self._ids.join(rows).reshape(-1, self._length)
        return RawBatch(
            ids=ids,
            mask=None if self._mask is None else self._mask.join(rows).reshape(-1, self._length - 1),
            sources=self._sources[rows],
            starts=self._starts[rows],
            borders=None if self._eot_id is None else document_borders(ids[:, :-1], self._eot_id),
        )


def document_borders(token_ids: np.ndarray, eot_id: int) -> np.ndarray:
    """Return the start of each document in the flattened batch, and the end, (documents + 1,) int32.

    A document starts with its end-of-text id or at the start of its sequence. The result is padded with empty
    documents, so that compiled code sees few shapes: room for one document per 64 tokens, doubled until all documents
    fit.
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
