"""How a token learns where it stands: one choice acts on the embeddings, the other on queries and keys.

`at` names the positions of the tokens at hand: a slice when they are the same for every sequence of the batch, else
(batch, time) int64.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

ROPE_THETA = 10_000.0


class Rotation(NamedTuple):
    """Cosines and sines of the angles of each token, broadcast over heads: (time or batch x time, 1, d_head / 2)."""

    cos: Tensor
    sin: Tensor


class LearnedPositions(nn.Module):
    """A learned vector for each position, added to the embeddings; attention is left as it is."""

    def __init__(self, *, max_seq_len: int, d_model: int, d_head: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(max_seq_len, d_model))

    def embed(self, x: Tensor, at: slice | Tensor) -> Tensor:
        """(batch, time, d_model) -> the same."""
        return x + self.weight[at]

    def rotation(self, at: slice | Tensor) -> None:
        """There is nothing to turn."""


class RotaryPositions(nn.Module):
    """Queries and keys turned by an angle that grows with the position (Su et al., arXiv:2104.09864), theta 10,000.

    Dimension j is paired with j + d_head/2, as in Llama. The angles are derived, so they are no part of the weights.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, *, max_seq_len: int, d_model: int, d_head: int) -> None:
        super().__init__()
        if d_head % 2:
            raise ValueError(f"model.position=rope needs an even number of dimensions a head, not {d_head}.")
        self._shape = max_seq_len, d_head
        cos, sin = self._tables(None)
        self.register_buffer("cos", cos, persistent=False)  # (max_seq_len, 1, d_head / 2)
        self.register_buffer("sin", sin, persistent=False)

    def embed(self, x: Tensor, at: slice | Tensor) -> Tensor:
        """(batch, time, d_model) -> the same."""
        return x

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Moved to another device as all modules are, but never rounded to the model's dtype."""
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
        """What `rotate` needs of these positions."""
        return Rotation(self.cos[at], self.sin[at])


def rotate(x: Tensor, rotation: Rotation | None) -> Tensor:
    """Turn (batch, time, heads, d_head) by the positions' angles, computed in fp32."""
    if rotation is None:
        return x
    cos, sin = rotation
    first, second = x.float().chunk(2, dim=-1)
    turned = torch.addcmul(first * cos, second, sin, value=-1), torch.addcmul(second * cos, first, sin)
    return torch.cat(turned, dim=-1).to(x.dtype)


Positions = LearnedPositions | RotaryPositions
POSITIONS: dict[str, Callable[..., Positions]] = {"learned": LearnedPositions, "rope": RotaryPositions}
