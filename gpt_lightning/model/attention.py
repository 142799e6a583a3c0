"""Causal self-attention, and the backends that compute it.

A backend takes queries, keys and values of shape (batch, heads, time, d_head) and the dropout rate of this pass, and gives
(batch, heads, time, d_head). `manual` writes the mask out and is the oracle of the others.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt_lightning.model.positions import Positions


def manual_attention(q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
    """Softmax over a (time, time) matrix of scores under a lower-triangular mask, all of it held in memory."""
    time = q.shape[-2]
    visible = torch.tril(torch.ones(time, time, dtype=torch.bool, device=q.device))
    scores = (q @ k.transpose(-2, -1)) / math.sqrt(q.shape[-1])
    weights = scores.masked_fill(~visible, float("-inf")).softmax(dim=-1)
    return F.dropout(weights, p=dropout) @ v


def sdpa_attention(q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
    """torch's scaled_dot_product_attention, which picks the fastest kernel for the device."""
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)


ATTENTION_BACKENDS: dict[str, Callable[[Tensor, Tensor, Tensor, float], Tensor]] = {
    "manual": manual_attention,
    "sdpa": sdpa_attention,
}


class CausalSelfAttention(nn.Module):
    """Multi-head attention of each token to itself and those before it."""

    def __init__(
        self, *, d_model: int, n_heads: int, bias: bool, dropout: float, backend: str, positions: Positions
    ) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.dropout = dropout
        self.attend = ATTENTION_BACKENDS[backend]
        self.rotate = positions.rotate  # the model's own positions, shared by its blocks
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=bias)  # rows: queries, keys, values, each head by head
        self.out = nn.Linear(d_model, d_model, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, d_model = x.shape
        qkv = self.qkv(x).view(batch, time, 3, self.n_heads, d_model // self.n_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (batch, heads, time, d_head)
        y = self.attend(self.rotate(q), self.rotate(k), v, self.dropout if self.training else 0.0)
        return self.out(y.transpose(1, 2).reshape(batch, time, d_model))
