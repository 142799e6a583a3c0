"""Cross-entropy straight from hidden states, without ever holding the logits of a whole batch.

Logits are formed for a chunk of tokens at a time. When gradients are wanted, the chunk's share of both gradients is formed
at once, while its logits exist, so that the backward pass has nothing to recompute: it only scales.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from gpt_lightning.model.linear import fast_linear

CHUNK_LOGITS = 2**23  # logits held at a time: 32 MB in fp32


class LossSum(NamedTuple):
    """Sums over the loss-bearing tokens, each a scalar."""

    objective: Tensor
    """What training descends: the nats, and the z-loss where there is one."""
    nats: Tensor
    """What is reported; it carries no gradient."""


def cross_entropy_sum(
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    mask: Tensor | None,
    *,
    soft_cap: float | None = None,
    z_loss: float = 0.0,
) -> LossSum:
    """Cross-entropy of `x @ weight.T` with `targets`, summed.

    Args:
        x: (tokens, d_model) hidden states.
        weight: (vocab, d_model), the head.
        targets: (tokens,) int64.
        mask: (tokens,) bool, whether each target bears loss; None: all do.
        soft_cap: logits are squeezed into (-soft_cap, soft_cap) by a tanh (Gemma 2, arXiv:2408.00118); None: they are not.
        z_loss: adds z_loss * logsumexp(logits)^2 per token to the objective (PaLM, arXiv:2204.02311).
    """
    if not torch.is_grad_enabled():
        x, weight = x.detach(), weight.detach()  # so that no gradient is formed for nobody
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    return LossSum(*_CrossEntropySum.apply(x, weight, targets, mask, soft_cap, z_loss, dtype))


class _CrossEntropySum(torch.autograd.Function):
    """Multiplies in `dtype`; everything between the matrix products, and the sums of gradients, are fp32 or better."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        targets: Tensor,
        mask: Tensor | None,
        soft_cap: float | None,
        z_loss: float,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        wants_x, wants_weight = ctx.needs_input_grad[:2]
        exact = torch.promote_types(dtype, torch.float32)
        objective, nats_sum = torch.zeros(2, dtype=exact, device=x.device)
        grad_x = torch.empty_like(x) if wants_x else None
        grad_weight = torch.zeros_like(weight, dtype=exact) if wants_weight else None
        product = torch.empty_like(weight, dtype=exact) if wants_weight and dtype != exact else None
        low_weight = weight.to(dtype)
        rows = max(1, CHUNK_LOGITS // len(weight))
        with torch.autocast(x.device.type, enabled=False):
            for start in range(0, len(x), rows):
                chunk = slice(start, start + rows)
                low_x, target = x[chunk].to(dtype), targets[chunk, None]
                logits = fast_linear(low_x, low_weight).to(exact)  # (rows, vocab)
                if soft_cap is not None:
                    logits.div_(soft_cap).tanh_()
                    slope = 1 - logits.square()
                    logits.mul_(soft_cap)
                target_logits, highest = logits.gather(1, target), logits.amax(dim=-1, keepdim=True)
                # from here on the chunk holds probabilities; the likeliest is at least 1/vocab, so its log is safe
                probabilities = torch.softmax(logits, dim=-1, out=logits)
                normaliser = highest - probabilities.amax(dim=-1, keepdim=True).log()
                nats = normaliser - target_logits
                loss = nats + z_loss * normaliser.square()
                bears_loss = None if mask is None else mask[chunk, None]
                if bears_loss is not None:
                    nats, loss = nats * bears_loss, loss * bears_loss
                nats_sum += nats.sum()
                objective += loss.sum()
                if not (wants_x or wants_weight):
                    continue
                grad_logits = probabilities
                if z_loss:
                    grad_logits *= 1 + 2 * z_loss * normaliser
                grad_logits.scatter_add_(1, target, torch.full_like(normaliser, -1.0))
                if soft_cap is not None:
                    grad_logits *= slope
                if bears_loss is not None:
                    grad_logits *= bears_loss
                low_grad = grad_logits.to(dtype)
                if grad_x is not None:
                    grad_x[chunk] = low_grad @ low_weight
                if grad_weight is not None:
                    if product is None:
                        grad_weight.addmm_(low_grad.T, low_x)
                    else:  # converting first: torch adds tensors of unequal types many times more slowly
                        grad_weight += product.copy_(low_grad.T @ low_x)
        ctx.gradients = grad_x, grad_weight
        ctx.weight_dtype = weight.dtype
        ctx.mark_non_differentiable(nats_sum)
        return objective, nats_sum

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        scale = grad_outputs[0]
        grad_x, grad_weight = ctx.gradients
        del ctx.gradients  # scaled in place, so a second backward pass finds nothing to scale twice
        return (
            None if grad_x is None else grad_x.mul_(scale),
            None if grad_weight is None else grad_weight.mul_(scale).to(ctx.weight_dtype),
            *[None] * 5,
        )
