"""Batches as tensors that can be copied to a GPU directly."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data_modules.sequence_reader import RawBatch


class Batch(NamedTuple):
    """Sequences of one micro-batch. All tensors are contiguous, because CUDA copies other tensors page by page, and the
    copy blocks.
    """

    token_ids: Tensor  # (batch, time) int64
    targets: Tensor  # (batch, time) int64, the token after each
    mask: Tensor | None  # (batch, time) bool: whether the target bears loss; None: all targets do
    sources: Tensor  # (batch,) int64, index into the order's sources
    starts: Tensor  # (batch,) int64, position of the first target in the source's token stream
    borders: Tensor | None = None  # (documents + 1,) int32, see `document_borders`; None: documents are not separated


def to_tensors(raw: RawBatch) -> Batch:
    """Convert a raw batch to tensors."""
    return Batch(
        token_ids=torch.from_numpy(raw.ids[:, :-1].astype(np.int64)),
        targets=torch.from_numpy(raw.ids[:, 1:].astype(np.int64)),
        mask=None if raw.mask is None else torch.from_numpy(raw.mask),
        sources=torch.from_numpy(raw.sources),
        starts=torch.from_numpy(raw.starts),
        borders=None if raw.borders is None else torch.from_numpy(raw.borders),
    )
