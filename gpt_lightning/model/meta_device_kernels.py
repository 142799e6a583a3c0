"""Measure on the meta device what torch's kernels on a CPU or on CUDA keep for the backward pass.

On the meta device, torch divides some operations into others than on a real device, and autocast has no effect.
`KernelStandIns` replaces those operations.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_PRODUCTS = {"matmul", "__matmul__", "bmm", "baddbmm", "einsum"}


class KernelStandIns(TorchFunctionMode):
    """Inside the context, operations on meta tensors keep what the kernels of a device keep.

    Args:
        on_cuda: The device is CUDA and not a CPU.
        autocast: Matrix products convert their inputs to bf16.
        softmax_in_fp32: Autocast computes a softmax in fp32, as it does on CUDA outside a compiled block.
    """

    def __init__(self, *, on_cuda: bool, autocast: bool, softmax_in_fp32: bool) -> None:
        super().__init__()
        self._on_cuda, self._autocast, self._softmax_in_fp32 = on_cuda, autocast, softmax_in_fp32

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        options = options or {}
        name = getattr(function, "__name__", "")
        if function is F.scaled_dot_product_attention and (self._on_cuda or not options.get("dropout_p")):
            return _attend(*arguments, **options)
        if self._on_cuda and function is F.rms_norm:
            return _rms_norm(*arguments, **options)
        if self._on_cuda and function is F.dropout:
            return _dropout(*arguments, **options)
        if self._on_cuda and name == "softmax":
            return _Softmax.apply(arguments[0], torch.float32 if self._softmax_in_fp32 else arguments[0].dtype)
        if self._autocast and name in _PRODUCTS:
            arguments = [value.bfloat16() if isinstance(value, Tensor) else value for value in arguments]
        return function(*arguments, **options)


def attend_fused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Stand in for a kernel that keeps queries, keys, values, mask, output and one number per query and head.

    Args:
        q: Queries; the size of the last dimension is d_head.
        k: Keys.
        v: Values.
        mask: Added to the scores; None: no explicit mask.
    """
    result: Tensor = _FusedAttention.apply(q, k, v, mask)
    return result


class _FusedAttention(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        y = torch.empty_like(q)
        context.save_for_backward(q, k, v, mask, y, q.new_empty(q.shape[:-1], dtype=torch.float32))
        return y

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *_ = context.saved_tensors
        return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v), None


class _FusedRmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        context.save_for_backward(x, x.new_empty(x.shape[:-1], dtype=torch.float32))
        return torch.empty_like(x)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        return torch.empty_like(context.saved_tensors[0])


class _Softmax(torch.autograd.Function):
    """CUDA's softmax, whose backward pass stores output x gradient in a temporary tensor."""

    @staticmethod
    def forward(context: Any, x: Tensor, dtype: torch.dtype) -> Tensor:
        y = torch.empty_like(x, dtype=dtype)
        context.save_for_backward(y)
        context.dtype = x.dtype
        return y

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (y,) = context.saved_tensors
        product = y * gradients[0]
        return torch.empty_like(product, dtype=context.dtype), None


def _attend(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, *_: Any, **options: Any) -> Tensor:
    return attend_fused(q, k, v, None if attn_mask is None else attn_mask.to(q.dtype))


def _rms_norm(x: Tensor, shape: Any, weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    y: Tensor = _FusedRmsNorm.apply(x)
    return y if weight is None else y * weight


def _dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """The mask of CUDA's dropout has one byte per number."""
    return torch.native_dropout(x, p, True)[0] if training and p else x
