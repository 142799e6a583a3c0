"""How a token learns where it stands: one choice acts on the embeddings, the other on queries and keys."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class LearnedPositions(nn.Module):
    """A learned vector for each position, added to the embeddings; attention is left as it is."""

    def __init__(self, *, max_seq_len: int, d_model: int, d_head: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(max_seq_len, d_model))

    def embed(self, x: Tensor) -> Tensor:
        """(batch, time, d_model) -> the same."""
        return x + self.weight[: x.shape[1]]

    def rotate(self, x: Tensor) -> Tensor:
        """(batch, heads, time, d_head) -> the same."""
        return x


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
        frequencies = 10_000.0 ** (-torch.arange(0, d_head, 2) / d_head)
        angles = torch.outer(torch.arange(max_seq_len), frequencies)  # (max_seq_len, d_head / 2)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def embed(self, x: Tensor) -> Tensor:
        """(batch, time, d_model) -> the same."""
        return x

    def rotate(self, x: Tensor) -> Tensor:
        """(batch, heads, time, d_head) -> the same."""
        cos, sin = self.cos[: x.shape[2]], self.sin[: x.shape[2]]
        first, second = x.float().chunk(2, dim=-1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)


Positions = LearnedPositions | RotaryPositions
POSITIONS: dict[str, Callable[..., Positions]] = {"learned": LearnedPositions, "rope": RotaryPositions}
