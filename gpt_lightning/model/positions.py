"""Position encodings: learned ones are added to the embeddings, rotary ones act on queries and keys.

`at` gives the positions of the current tokens: a slice if all sequences of the batch have the same positions, otherwise
(batch, time) int64.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

ROPE_THETA = 10_000.0


class Rotation(NamedTuple):
    """Cosines and sines of the angles of each token, (time or batch x time, 1, d_head / 2), broadcast over heads."""

    cos: Tensor
    sin: Tensor


class LearnedPositions(nn.Module):
    """A learned vector per position, added to the embeddings; attention does not change."""

    def __init__(self, *, max_seq_len: int, d_model: int, d_head: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(max_seq_len, d_model))

    def embed(self, x: Tensor, at: slice | Tensor) -> Tensor:
        """Add the position vectors to embeddings, (batch, time, d_model)."""
        return x + self.weight[at]

    def rotation(self, at: slice | Tensor) -> None:
        """Return None: queries and keys are not rotated."""


class RotaryPositions(nn.Module):
    """Rotate queries and keys by an angle proportional to the position (Su et al., arXiv:2104.09864), with theta =
    10,000.

    Dimension j is paired with j + d_head/2, as in Llama. The angles are computed, so the state dict does not contain
    them.

    Raises:
        ValueError: d_head is odd.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, *, max_seq_len: int, d_model: int, d_head: int) -> None:
        super().__init__()
        if d_head % 2:
            raise ValueError(f"d_head is {d_head}: it must be even for model.position=rope.")
        self._shape = max_seq_len, d_head
        cos, sin = self._tables(None)
        self.register_buffer("cos", cos, persistent=False)  # (max_seq_len, 1, d_head / 2)
        self.register_buffer("sin", sin, persistent=False)

    def embed(self, x: Tensor, at: slice | Tensor) -> Tensor:
        """Return the embeddings, (batch, time, d_model), unchanged."""
        return x

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Move the tables to another device as usual, but keep them in fp32 instead of the model's dtype."""
        super()._apply(fn, recurse)
        if self.cos.dtype != torch.float32:
            self.cos, self.sin = self._tables(self.cos.device)
        return self

    def _tables(self, device: torch.device | None) -> tuple[Tensor, Tensor]:
        max_seq_len, d_head = self._shape
        frequencies = ROPE_THETA ** (-torch.arange(0, d_head, 2, dtype=torch.float64) / d_head)
        angles = torch.outer(torch.arange(max_seq_len, dtype=torch.float64), frequencies)[:, None]
        return angles.cos().float().to(device), angles.sin().float().to(device)

    def rotation(self, at: slice | Tensor) -> Rotation:
        """Return the cosines and sines for these positions."""
        return Rotation(self.cos[at], self.sin[at])


def rotate(x: Tensor, rotation: Rotation | None) -> Tensor:
    """Rotate (batch, time, heads, d_head) by the angles of the positions, in fp32. None returns x unchanged."""
    if rotation is None:
        return x
    cos, sin = rotation
    first, second = x.float().chunk(2, dim=-1)
    turned = torch.addcmul(first * cos, second, sin, value=-1), torch.addcmul(second * cos, first, sin)
    return torch.cat(turned, dim=-1).to(x.dtype)


Positions = LearnedPositions | RotaryPositions
