"""Which keys a query sees."""

from typing import NamedTuple

import torch
from torch import Tensor


class AttentionMask(NamedTuple):
    """The keys that each query sees: from `first` to `last`, both included."""

    n_queries: int
    n_keys: int
    first: Tensor | None = None
    """(batch, queries) int64; None: from the first key on."""
    last: Tensor | None = None
    """(batch, queries) int64; None: the last query sees all keys, the one before it one less, and so on."""
    borders: Tensor | None = None
    """(documents + 1,) int32, where each document of whole sequences begins in the flattened batch, filled up by documents of
    no tokens; None: they follow from `first`."""

    @property
    def has_documents(self) -> bool:
        """Whether these are whole sequences in which a query sees its own document alone."""
        return self.first is not None and self.last is None and self.n_queries == self.n_keys

    @property
    def needs_mask(self) -> bool:
        """Whether only a (queries, keys) mask says what is seen."""
        if self.first is not None or self.last is not None:
            return not self.has_documents
        return self.n_queries not in (1, self.n_keys)

    def mask(self, device: torch.device) -> Tensor:
        """(queries, keys) or (batch, 1, queries, keys) bool, True where a query sees a key."""
        keys = torch.arange(self.n_keys, device=device)
        if self.last is None:
            square = torch.ones(self.n_queries, self.n_keys, dtype=torch.bool, device=device)
            mask = square.tril(self.n_keys - self.n_queries)
        else:
            mask = keys <= self.last[:, None, :, None]
        return mask if self.first is None else mask & (keys >= self.first[:, None, :, None])
