"""Normalisation over the last dimension."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

EPS = 1e-5
BLOCK = 2**17  # numbers that are worked on at a time on a CPU, so that they stay in its cache


class LayerNorm(nn.LayerNorm):
    """torch's layer norm, whose parameters have the same gradients on a CPU with any number of threads.

    There torch sums them thread by thread, in the input's dtype: bf16's sums stop growing after some hundred rows, and fp32's
    last bits depend on the number of threads.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return super().forward(x)
        y: Tensor = _LayerNorm.apply(x, self.weight, self.bias, self.eps)
        return y


class _LayerNorm(torch.autograd.Function):
    """Computes in fp32 or better whatever the dtypes, and rounds only what it returns."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
        exact = torch.promote_types(x.dtype, torch.float32)
        exact_bias = None if bias is None else bias.to(exact)
        y, mean, scale = torch.native_layer_norm(x.to(exact), weight.shape, weight.to(exact), exact_bias, eps)
        ctx.save_for_backward(x, weight, mean, scale)
        ctx.bias_dtype = None if bias is None else bias.dtype
        return y.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale = ctx.saved_tensors
        exact_x, exact_grad = x.to(mean.dtype), grad.to(mean.dtype)
        grad_x = torch.ops.aten.native_layer_norm_backward(
            exact_grad, exact_x, weight.shape, mean, scale, weight.to(mean.dtype), None, [True, False, False]
        )[0]
        grad_weight, grad_bias = _sums(*(t.flatten(0, -2) for t in (exact_x, exact_grad, mean, scale)))
        bias_dtype = ctx.bias_dtype
        return (
            grad_x.to(x.dtype),
            grad_weight.to(weight.dtype),
            None if bias_dtype is None else grad_bias.to(bias_dtype),
            None,
        )


def _sums(x: Tensor, grad: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """Gradients of weight and bias, (2, width).

    torch shares a sum over rows out by columns, so each column is summed in one order.

    Args:
        x, grad: (rows, width).
        mean, scale: (rows, 1); x becomes normal by (x - mean) * scale.
    """
    sums = x.new_zeros(2, x.shape[1])
    rows = max(1, BLOCK // x.shape[1])
    for x_block, grad_block, *moments in zip(*(t.split(rows) for t in (x, grad, mean, scale)), strict=True):
        sums[0] += torch.sub(x_block, moments[0]).mul_(moments[1]).mul_(grad_block).sum(0)
        sums[1] += grad_block.sum(0)
    return sums


NORMS: dict[str, Callable[..., nn.Module]] = {
    "layernorm": lambda width, *, bias: LayerNorm(width, eps=EPS, bias=bias),
    # Zhang & Sennrich, arXiv:1910.07467; it has no bias to leave out
    "rmsnorm": lambda width, *, bias: nn.RMSNorm(width, eps=EPS),
}
