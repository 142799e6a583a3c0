"""Description of which keys each query attends to."""

from typing import NamedTuple

import torch
from torch import Tensor


class AttentionMask(NamedTuple):
    """Each query attends to the keys from `first` to `last`, both included."""

    n_queries: int
    n_keys: int
    first: Tensor | None = None
    """(batch, queries) int64; None: key 0."""
    last: Tensor | None = None
    """(batch, queries) int64, the last key that each query attends to. None: the last query attends up to the last key,
    the query before it up to the key before, and so on.
    """
    borders: Tensor | None = None
    """(documents + 1,) int32, the start of each document in the flattened batch of whole sequences, padded with empty
    documents; None: computed from `first`."""

    @property
    def has_documents(self) -> bool:
        """Whether these are whole sequences in which a query attends only to its own document."""
        return self.first is not None and self.last is None and self.n_queries == self.n_keys

    @property
    def needs_mask(self) -> bool:
        """Whether the description requires an explicit (queries, keys) mask."""
        if self.first is not None or self.last is not None:
            return not self.has_documents
        return self.n_queries not in (1, self.n_keys)

    def mask(self, device: torch.device) -> Tensor:
        """Return the mask, (queries, keys) or (batch, 1, queries, keys) bool; True where a query attends to a key."""
        keys = torch.arange(self.n_keys, device=device)
        if self.last is None:
            square = torch.ones(self.n_queries, self.n_keys, dtype=torch.bool, device=device)
            mask = square.tril(self.n_keys - self.n_queries)
        else:
            mask = keys <= self.last[:, None, :, None]
        return mask if self.first is None else mask & (keys >= self.first[:, None, :, None])
