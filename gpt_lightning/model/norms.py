"""Normalisation layers over the last dimension."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-5


class LayerNorm(nn.LayerNorm):
    """torch's layer norm, except that on a CPU the gradients of the parameters are always summed in fp32.

    torch sums these gradients in bf16 for bf16 inputs, and after a few hundred rows such a sum no longer grows.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or x.dtype not in (torch.bfloat16, torch.float16) or not torch.is_grad_enabled():
            return super().forward(x)
        bias = None if self.bias is None else self.bias.float()
        return F.layer_norm(x.float(), self.normalized_shape, self.weight.float(), bias, self.eps).to(x.dtype)


def layer_norm(width: int, *, bias: bool) -> nn.Module:
    """Build a layer norm."""
    return LayerNorm(width, eps=EPS, bias=bias)


def rms_norm(width: int, *, bias: bool) -> nn.Module:
    """Build an RMS norm (Zhang & Sennrich, arXiv:1910.07467). An RMS norm never has a bias."""
    return nn.RMSNorm(width, eps=EPS)
