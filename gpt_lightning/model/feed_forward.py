"""The position-wise feed-forward. In each, `out` is the projection back into the residual stream."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from gpt_lightning.model.linear import Linear


class GELUFeedForward(nn.Module):
    """out(gelu(up(x))); `approximate` is "none" for the exact GELU, "tanh" for the one GPT-2 was trained with."""

    def __init__(self, d_model: int, d_ff: int, *, bias: bool, approximate: str) -> None:
        super().__init__()
        self.up = Linear(d_model, d_ff, bias=bias)
        self.out = Linear(d_ff, d_model, bias=bias)
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.gelu(self.up(x), approximate=self.approximate))


class SwiGLUFeedForward(nn.Module):
    """out(silu(gate(x)) * up(x)) (Shazeer, arXiv:2002.05202)."""

    def __init__(self, d_model: int, d_ff: int, *, bias: bool) -> None:
        super().__init__()
        self.gate_up = Linear(d_model, 2 * d_ff, bias=bias)  # the gate's rows first
        self.out = Linear(d_ff, d_model, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.out(F.silu(gate) * up)


class ReLU2FeedForward(nn.Module):
    """out(relu(up(x))^2) (So et al., Primer, arXiv:2109.08668)."""

    def __init__(self, d_model: int, d_ff: int, *, bias: bool) -> None:
        super().__init__()
        self.up = Linear(d_model, d_ff, bias=bias)
        self.out = Linear(d_ff, d_model, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.relu(self.up(x)).square())


FEED_FORWARDS: dict[str, Callable[..., nn.Module]] = {
    "gelu": lambda d_model, d_ff, *, bias: GELUFeedForward(d_model, d_ff, bias=bias, approximate="none"),
    "gelu_tanh": lambda d_model, d_ff, *, bias: GELUFeedForward(d_model, d_ff, bias=bias, approximate="tanh"),
    "swiglu": SwiGLUFeedForward,
    "relu2": ReLU2FeedForward,
}
