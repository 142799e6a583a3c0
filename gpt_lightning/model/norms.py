"""Normalisation over the last dimension."""

from collections.abc import Callable

from torch import nn

NORMS: dict[str, Callable[..., nn.Module]] = {
    "layernorm": lambda width, *, bias: nn.LayerNorm(width, eps=1e-5, bias=bias),
    "rmsnorm": lambda width, *, bias: nn.RMSNorm(width, eps=1e-5),  # it has no bias to leave out
}
