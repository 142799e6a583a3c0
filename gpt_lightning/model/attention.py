"""Causal self-attention."""

from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from gpt_lightning.model.attention_backends import Backend
from gpt_lightning.model.cpu_linear import FastLinear
from gpt_lightning.model.kv_cache import LayerCache
from gpt_lightning.model.positions import Rotation, rotate


class AttentionContext(NamedTuple):
    """What all blocks share in a forward pass."""

    backend: Backend
    plan: Any
    """Made by the backend's `plan` from the attention mask."""
    rotation: Rotation | None


class CausalSelfAttention(nn.Module):
    """Attention of each token to itself and all earlier tokens, with n_heads query and n_kv_heads key/value heads."""

    def __init__(
        self, *, d_model: int, n_heads: int, n_kv_heads: int, bias: bool, dropout: float, qk_norm: bool
    ) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads = n_heads, n_kv_heads
        self.dropout = dropout
        # RMS norm without gains: queries and keys keep their directions, and scores stay below sqrt(d_head)
        self.qk_norm = _rms_norm if qk_norm else nn.Identity()
        d_head = d_model // n_heads
        self.qkv = FastLinear(
            d_model, (n_heads + 2 * n_kv_heads) * d_head, bias=bias
        )  # rows: q, k, v, each head by head
        self.qkv.stacked = (n_heads * d_head, n_kv_heads * d_head, n_kv_heads * d_head)
        self.out = FastLinear(d_model, d_model, bias=bias)

    def forward(self, x: Tensor, shared: AttentionContext, cache: LayerCache | None = None) -> Tensor:
        batch, time, d_model = x.shape
        qkv = self.qkv(x).view(batch, time, self.n_heads + 2 * self.n_kv_heads, d_model // self.n_heads)
        qk, v = qkv.split([self.n_heads + self.n_kv_heads, self.n_kv_heads], dim=2)  # (batch, time, heads, d_head)
        q, k = rotate(self.qk_norm(qk), shared.rotation).split([self.n_heads, self.n_kv_heads], dim=2)
        if cache is not None:
            k, v = cache.append(k, v)
        y = shared.backend.attend(q, k, v, shared.plan, self.dropout if self.training else 0.0)
        return self.out(y.reshape(batch, time, d_model))


def _rms_norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],)).to(x.dtype)  # on CUDA, autocast would return fp32, unlike for the values
