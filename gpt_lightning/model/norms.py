"""Normalisation over the last dimension."""

from collections.abc import Callable

from torch import nn

EPS = 1e-5


NORMS: dict[str, Callable[..., nn.Module]] = {
    "layernorm": lambda width, *, bias: nn.LayerNorm(width, eps=EPS, bias=bias),
    # Zhang & Sennrich, arXiv:1910.07467; it has no bias to leave out
    "rmsnorm": lambda width, *, bias: nn.RMSNorm(width, eps=EPS),
}
