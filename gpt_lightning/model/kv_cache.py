"""Keys and values of the tokens that were read, so that each token is read once."""

from typing import NamedTuple

import torch
from torch import Tensor

from gpt_lightning.model.attention_mask import AttentionMask


class LayerCache(NamedTuple):
    """One layer's part of a `KVCache` during one forward pass."""

    keys: Tensor
    values: Tensor
    rows: Tensor
    at: slice | Tensor
    n_keys: int

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store (batch, time, kv_heads, d_head) at its positions; give all that is stored, (batch, keys, kv_heads, d_head)."""
        if isinstance(self.at, slice):
            self.keys[:, self.at], self.values[:, self.at] = k, v
        else:
            rows, at = self.rows, self.at
            self.keys[rows, at], self.values[rows, at] = k.to(self.keys.dtype), v.to(self.values.dtype)
        return self.keys[:, : self.n_keys], self.values[:, : self.n_keys]


class KVCache:
    """Room for the keys and values of a batch of sequences, allocated once. `GPT.empty_cache` makes one.

    Args:
        keys, values: (n_layers, batch, room, n_kv_heads, d_head), of finite numbers: what is masked is still multiplied.
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values
        self.lengths = torch.zeros(keys.shape[1], dtype=torch.int64)  # tokens read, by sequence; on the CPU
        self.document_starts = torch.zeros(keys.shape[1], dtype=torch.int64, device=keys.device)
        self.rows = torch.arange(keys.shape[1], device=keys.device)[:, None]

    @property
    def room(self) -> int:
        """The most tokens a sequence can have."""
        return self.keys.shape[2]

    def n_keys_after(self, time: int) -> int:
        """How many keys a pass over `time` more tokens of each sequence reads."""
        return int(self.lengths.max()) + time

    def reopen(self, rows: slice) -> "KVCache":
        """Some of the sequences, in the same memory, begun anew."""
        part = KVCache(self.keys[:, rows], self.values[:, rows])
        part.lengths, part.document_starts = self.lengths[rows].zero_(), self.document_starts[rows].zero_()
        return part

    def keep(self, rows: list[int]) -> None:
        """Forget all other sequences; one that is named twice becomes two."""
        self.keys, self.values = self.keys[:, rows], self.values[:, rows]
        self.lengths, self.document_starts = self.lengths[rows], self.document_starts[rows]
        self.rows = torch.arange(len(rows), device=self.keys.device)[:, None]

    def place(self, token_ids: Tensor, eot_id: int | None) -> tuple[slice | Tensor, AttentionMask]:
        """Positions for the next (batch, time) tokens and what they see; the tokens count as read from here on.

        Args:
            eot_id: the id that stands before a document, which sees nothing further back; None: documents see each other.
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
        """The part of layer `number`, for tokens that come at `at` and make `n_keys` keys in all."""
        return LayerCache(self.keys[number], self.values[number], self.rows, at, n_keys)


class StaticCache(KVCache):
    """The memory of a `KVCache`, for passes over one token of each sequence whose shapes stay the same.

    The lengths are on the device, where each pass adds to them, so the host need not know them.

    Args:
        n_keys: how many keys a pass reads. Those that a sequence does not have yet are masked.
    """

    def __init__(self, cache: KVCache, n_keys: int) -> None:
        super().__init__(cache.keys, cache.values)
        self.lengths = torch.zeros_like(self.document_starts)
        self.document_starts = cache.document_starts
        self.n_keys = n_keys

    def n_keys_after(self, time: int) -> int:
        """The same for every pass."""
        return self.n_keys

    def place(self, token_ids: Tensor, eot_id: int | None) -> tuple[Tensor, AttentionMask]:
        """As `KVCache.place`, without a value that the host would have to know."""
        at = self.lengths[:, None].clone()
        self.lengths += 1
        if eot_id is None:
            return at, AttentionMask(1, self.n_keys, last=at)
        first = document_starts(token_ids, at, eot_id, self.document_starts[:, None])
        self.document_starts.copy_(first[:, -1])
        return at, AttentionMask(1, self.n_keys, first=first, last=at)


def document_starts(token_ids: Tensor, positions: Tensor, eot_id: int, before: Tensor) -> Tensor:
    """(batch, time): where the document of each token begins.

    Args:
        token_ids: (batch, time).
        positions: (time,) or (batch, time).
        before: (batch, 1), where the document before the first token began.
    """
    starts = torch.where(token_ids == eot_id, positions, before)
    return starts.cummax(dim=1).values
