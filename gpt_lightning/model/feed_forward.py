"""Position-wise feed-forward layers. In each, `out` is the projection into the residual stream."""

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from gpt_lightning.model.cpu_linear import FastLinear


class FeedForward(nn.Module):
    """out(activation(up(x)))."""

    def __init__(self, d_model: int, d_ff: int, *, bias: bool, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.up = FastLinear(d_model, d_ff, bias=bias)
        self.out = FastLinear(d_ff, d_model, bias=bias)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.activation(self.up(x)))


class SwiGLUFeedForward(nn.Module):
    """out(silu(gate(x)) * up(x)) (Shazeer, arXiv:2002.05202)."""

    def __init__(self, d_model: int, d_ff: int, *, bias: bool) -> None:
        super().__init__()
        self.gate_up = FastLinear(d_model, 2 * d_ff, bias=bias)  # rows: gate, up
        self.gate_up.stacked = (d_ff, d_ff)
        self.out = FastLinear(d_ff, d_model, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.out(F.silu(gate) * up)


def relu2(x: Tensor) -> Tensor:
    """relu(x)^2 (So et al., Primer, arXiv:2109.08668)."""
    y = F.relu(x)
    return y * y  # on CUDA, autocast would compute a power in fp32


gelu = partial(FeedForward, activation=F.gelu)
gelu_tanh = partial(FeedForward, activation=partial(F.gelu, approximate="tanh"))  # GPT-2's activation
relu2_feed_forward = partial(FeedForward, activation=relu2)
