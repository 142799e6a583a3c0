"""Cross-entropy computed from hidden states without storing the logits of a whole batch.

Logits are computed for a chunk of tokens at a time. If gradients are needed, the chunk's contribution to both gradients
is computed while its logits exist. The backward pass then only scales the gradients and recomputes nothing.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gpt_lightning.model.cpu_linear import fast_linear, working_dtype
from gpt_lightning.model.loss_kernels import choose_loss_kernel, loss_kernel

CUDA_CHUNK_TOKENS = 8192  # tokens whose logits are stored at a time on CUDA; enough for full speed of the products
CHUNK_BYTES = 2**25  # size of the logits stored at a time on a CPU
CHUNK_TOKENS = 1024  # upper limit on a CPU, so that sums stay within the range of fp16
BLOCK = 2**20  # numbers processed at a time on a CPU, so that they stay in its cache


class SummedLoss(NamedTuple):
    """Sums over the loss-bearing tokens, each a scalar, and the summands."""

    objective: Tensor
    """What training minimises: the loss in nats, plus any z-loss."""
    nats: Tensor
    """The loss that is reported, in nats, without a gradient."""
    nats_of_tokens: Tensor
    """(tokens,) loss of each target, 0 if the target bears no loss, without a gradient."""


def cross_entropy_sum(
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    mask: Tensor | None,
    *,
    soft_cap: float | None = None,
    z_loss: float = 0.0,
    kernel: str = "auto",
) -> SummedLoss:
    """Sum the cross-entropy of `x @ weight.T` with `targets`.

    Args:
        x: (tokens, d_model) hidden states.
        weight: (vocab, d_model), the head.
        targets: (tokens,) int64.
        mask: (tokens,) bool, whether each target bears loss; None: all do.
        soft_cap: Limits logits to (-soft_cap, soft_cap) with a tanh (Gemma 2, arXiv:2408.00118); None: no limit.
        z_loss: Adds z_loss * logsumexp(logits)^2 per token to the objective (PaLM, arXiv:2204.02311).
        kernel: A key of LOSS_KERNELS, or auto.
    """
    if not torch.is_grad_enabled():
        x, weight = x.detach(), weight.detach()  # do not compute gradients that nobody uses
    return SummedLoss(*_CrossEntropySum.apply(x, weight, targets, mask, soft_cap, z_loss, kernel, working_dtype(x)))


class _CrossEntropySum(torch.autograd.Function):
    """Matrix products use `dtype`; everything between them, and the sums of gradients, use fp32 or better."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        targets: Tensor,
        mask: Tensor | None,
        soft_cap: float | None,
        z_loss: float,
        kernel: str,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor, Tensor]:
        wants_x, wants_weight = ctx.needs_input_grad[:2]
        exact = torch.promote_types(dtype, torch.float32)
        name, _ = choose_loss_kernel(kernel, x.device)
        loss_of = loss_kernel(name, dtype)
        nats_of_tokens = torch.empty(len(x), dtype=exact, device=x.device)
        objectives = torch.empty_like(nats_of_tokens) if z_loss else nats_of_tokens
        grad_x = torch.empty_like(x) if wants_x else None
        with torch.autocast(x.device.type, enabled=False):
            head = _Products(weight, dtype, exact)
            low_x = x.to(dtype)
            for chunk in _slices(len(x), chunk_tokens(len(weight), dtype, x.device.type)):
                logits = head.logits(low_x[chunk])
                block_rows = BLOCK // len(weight) if x.device.type == "cpu" else len(logits)
                for block in _slices(len(logits), block_rows):
                    rows = slice(chunk.start + block.start, chunk.start + block.stop)
                    bears_loss = None if mask is None else mask[rows]
                    objective, nats_of_tokens[rows] = loss_of(
                        logits[block], targets[rows], bears_loss, soft_cap, z_loss, wants_x or wants_weight
                    )
                    if z_loss:
                        objectives[rows] = objective
                if grad_x is not None:
                    head.gradient_of_x(logits, out=grad_x[chunk])
                if wants_weight:
                    head.add_to_gradient_of_weight(logits, low_x[chunk])
        ctx.gradients = grad_x, head.gradient_of_weight
        ctx.weight_dtype = weight.dtype
        objective, nats = objectives.sum(), nats_of_tokens.sum()
        ctx.mark_non_differentiable(nats, nats_of_tokens)
        return objective, nats, nats_of_tokens

    @staticmethod
    @once_differentiable  # the stored gradients are tensors without a graph
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        scale = grad_outputs[0]
        grad_x, grad_weight = ctx.gradients
        del ctx.gradients  # they are scaled in place, so a second backward pass must not find them
        return (
            None if grad_x is None else grad_x.mul_(scale),
            None if grad_weight is None else grad_weight.mul_(scale).to(ctx.weight_dtype),
            *[None] * 6,
        )


class _Products:
    """The three matrix products of the head. Large buffers are reused, because allocating them is slow."""

    def __init__(self, weight: Tensor, dtype: torch.dtype, exact: torch.dtype) -> None:
        self.weight, self.exact = weight.to(dtype), exact
        self.gradient_of_weight: Tensor | None = None
        self._logits: Tensor | None = None
        self._product: Tensor | None = None

    def logits(self, x: Tensor) -> Tensor:
        """Return logits (rows, vocab), valid until the next call."""
        if x.dtype == self.exact and not x.is_cuda:
            return fast_linear(x, self.weight)
        if self._logits is None:
            self._logits = x.new_empty(len(x), len(self.weight))
        return torch.mm(x, self.weight.T, out=self._logits[: len(x)])

    def gradient_of_x(self, grad_logits: Tensor, *, out: Tensor) -> None:
        """Write the gradient of x, (rows, d_model), to `out`."""
        if out.is_cuda and out.dtype == self.exact != grad_logits.dtype:
            torch.mm(grad_logits, self.weight, out_dtype=self.exact, out=out)
        else:
            out.copy_(grad_logits @ self.weight)

    def add_to_gradient_of_weight(self, grad_logits: Tensor, x: Tensor) -> None:
        """Add to the gradient of the weight, (vocab, d_model), in fp32 or better."""
        if x.is_cuda and x.dtype != self.exact:  # one product that sums in fp32
            if self.gradient_of_weight is None:
                self.gradient_of_weight = torch.mm(grad_logits.T, x, out_dtype=self.exact)
            else:
                total = self.gradient_of_weight
                torch.addmm(total, grad_logits.T, x, out_dtype=self.exact, out=total)
        elif self.gradient_of_weight is None:
            self._product = grad_logits.T @ x
            self.gradient_of_weight = self._product.to(self.exact)
        elif x.dtype == self.exact:
            self.gradient_of_weight.addmm_(grad_logits.T, x)
        else:
            product = torch.mm(grad_logits.T, x, out=self._product)
            for rows in _slices(len(product), BLOCK // x.shape[1]):
                # convert first: on a CPU, torch is many times slower at adding tensors of different dtypes
                self.gradient_of_weight[rows] += product[rows].to(self.exact)


def chunk_tokens(vocab_size: int, dtype: torch.dtype, device_type: str) -> int:
    """Return the number of tokens whose logits are stored at a time."""
    if device_type == "cuda":
        return CUDA_CHUNK_TOKENS
    return max(1, min(CHUNK_BYTES // (vocab_size * dtype.itemsize), CHUNK_TOKENS))


def _slices(length: int, step: int) -> list[slice]:
    step = max(1, step)
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]
