"""What a training step is given: sequences of one micro-batch, as tensors that a GPU can take by plain copies."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data_modules.sequence_reader import RawBatch


class Batch(NamedTuple):
    """Sequences of one micro-batch. All tensors are contiguous: of another, pinned, CUDA copies page by page and waits."""

    token_ids: Tensor  # (batch, time) int64
    targets: Tensor  # (batch, time) int64, the token after each
    mask: Tensor | None  # (batch, time) bool: does the target bear loss? None: all of them do
    sources: Tensor  # (batch,) int64, index into the order's sources
    starts: Tensor  # (batch,) int64, where the targets begin in the source's stream
    borders: Tensor | None = None  # (documents + 1,) int32, see `document_borders`; None: documents see each other


def to_tensors(raw: RawBatch) -> Batch:
    """The same sequences as tensors."""
    return Batch(
        token_ids=torch.from_numpy(raw.ids[:, :-1].astype(np.int64)),
        targets=torch.from_numpy(raw.ids[:, 1:].astype(np.int64)),
        mask=None if raw.mask is None else torch.from_numpy(raw.mask),
        sources=torch.from_numpy(raw.sources),
        starts=torch.from_numpy(raw.starts),
        borders=None if raw.borders is None else torch.from_numpy(raw.borders),
    )
