"""Normalisation over the last dimension."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-5


class LayerNorm(nn.LayerNorm):
    """torch's layer norm, with parameters whose gradients are summed in fp32 on a CPU, whatever the input's dtype.

    There torch sums bf16 in bf16: after some hundred rows such a sum no longer grows.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or x.dtype not in (torch.bfloat16, torch.float16) or not torch.is_grad_enabled():
            return super().forward(x)
        bias = None if self.bias is None else self.bias.float()
        return F.layer_norm(x.float(), self.normalized_shape, self.weight.float(), bias, self.eps).to(x.dtype)


NORMS: dict[str, Callable[..., nn.Module]] = {
    "layernorm": lambda width, *, bias: LayerNorm(width, eps=EPS, bias=bias),
    # Zhang & Sennrich, arXiv:1910.07467; it has no bias to leave out
    "rmsnorm": lambda width, *, bias: nn.RMSNorm(width, eps=EPS),
}
