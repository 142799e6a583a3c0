"""Cache of keys and values, so that each token is read only once."""

from typing import NamedTuple

import torch
from torch import Tensor

from gpt_lightning.model.attention_mask import AttentionMask


class LayerCache(NamedTuple):
    """One layer of a `KVCache` during a forward pass."""

    keys: Tensor
    values: Tensor
    rows: Tensor
    at: slice | Tensor
    n_keys: int

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store (batch, time, kv_heads, d_head), and return all that is stored, (batch, keys, kv_heads, d_head)."""
        if isinstance(self.at, slice):
            self.keys[:, self.at], self.values[:, self.at] = k, v
        else:
            rows, at = self.rows, self.at
            self.keys[rows, at], self.values[rows, at] = k.to(self.keys.dtype), v.to(self.values.dtype)
        return self.keys[:, : self.n_keys], self.values[:, : self.n_keys]


class KVCache:
    """Preallocated memory for the keys and values of a batch of sequences. `GPT.empty_cache` makes one.

    Args:
        keys, values: (n_layers, batch, room, n_kv_heads, d_head). All values must be finite, because masked ones are
            multiplied by 0.
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values
        self.lengths = torch.zeros(keys.shape[1], dtype=torch.int64)  # tokens read per sequence; on the CPU
        self.document_starts = torch.zeros(keys.shape[1], dtype=torch.int64, device=keys.device)
        self.rows = torch.arange(keys.shape[1], device=keys.device)[:, None]

    @property
    def room(self) -> int:
        """Maximum number of tokens of a sequence."""
        return self.keys.shape[2]

    def n_keys_after(self, time: int) -> int:
        """Return the number of keys that a pass over `time` more tokens per sequence reads."""
        return int(self.lengths.max()) + time

    def reopen(self, rows: slice) -> "KVCache":
        """Reset some of the sequences. Returns a cache of only these sequences, which shares memory with this cache."""
        part = KVCache(self.keys[:, rows], self.values[:, rows])
        part.lengths, part.document_starts = self.lengths[rows].zero_(), self.document_starts[rows].zero_()
        return part

    def keep(self, rows: list[int]) -> None:
        """Keep only the given sequences. A sequence that is listed twice is duplicated."""
        self.keys, self.values = self.keys[:, rows], self.values[:, rows]
        self.lengths, self.document_starts = self.lengths[rows], self.document_starts[rows]
        self.rows = torch.arange(len(rows), device=self.keys.device)[:, None]

    def place(self, token_ids: Tensor, eot_id: int | None) -> tuple[slice | Tensor, AttentionMask]:
        """Assign positions to the next (batch, time) tokens, which count as read from now on.

        Args:
            token_ids: (batch, time) int64.
            eot_id: The id that starts a document, if documents are separate; None: tokens attend across documents.

        Returns:
            (positions: a slice if equal for all sequences, otherwise (batch, time) int64; the mask of the tokens)
        """
        time = token_ids.shape[1]
        lengths = self.lengths.tolist()
        n_keys = max(lengths) + time
        at: slice | Tensor = slice(lengths[0], n_keys)
        last = None
        if min(lengths) + time < n_keys:
            at = last = (self.lengths[:, None] + torch.arange(time)).to(token_ids.device)
        self.lengths += time
        if eot_id is None:
            return at, AttentionMask(time, n_keys, last=last)
        positions = last if last is not None else torch.arange(lengths[0], n_keys, device=token_ids.device)
        first = document_starts(token_ids, positions, eot_id, self.document_starts[:, None])
        self.document_starts.copy_(first[:, -1])
        return at, AttentionMask(time, n_keys, first=first, last=last)

    def layer(self, number: int, at: slice | Tensor, n_keys: int) -> LayerCache:
        """Return layer `number` for tokens at positions `at`, with `n_keys` keys in total."""
        return LayerCache(self.keys[number], self.values[number], self.rows, at, n_keys)


class StaticCache(KVCache):
    """The memory of a `KVCache`, for passes over one token per sequence with constant shapes.

    The lengths are on the device and each pass increments them, so the host need not know the lengths.

    Args:
        cache: Provides the memory.
        n_keys: Number of keys that a pass reads. Keys that a sequence does not have yet are masked.
    """

    def __init__(self, cache: KVCache, n_keys: int) -> None:
        super().__init__(cache.keys, cache.values)
        self.lengths = torch.zeros_like(self.document_starts)
        self.document_starts = cache.document_starts
        self.n_keys = n_keys

    def n_keys_after(self, time: int) -> int:
        """Return the constant number of keys."""
        return self.n_keys

    def place(self, token_ids: Tensor, eot_id: int | None) -> tuple[Tensor, AttentionMask]:
        """As `KVCache.place`, but without values that the host would have to read."""
        at = self.lengths[:, None].clone()
        self.lengths += 1
        if eot_id is None:
            return at, AttentionMask(1, self.n_keys, last=at)
        first = document_starts(token_ids, at, eot_id, self.document_starts[:, None])
        self.document_starts.copy_(first[:, -1])
        return at, AttentionMask(1, self.n_keys, first=first, last=at)


def document_starts(token_ids: Tensor, positions: Tensor, eot_id: int, before: Tensor) -> Tensor:
    """Return the position at which the document of each token starts, (batch, time).

    Args:
        token_ids: (batch, time).
        positions: (time,) or (batch, time).
        before: (batch, 1), start of the document that contains the token before the first.
    """
    starts = torch.where(token_ids == eot_id, positions, before)
    return starts.cummax(dim=1).values
