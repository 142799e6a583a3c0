"""Cross-entropy straight from hidden states, without ever holding the logits of a whole batch.

Logits are formed for a chunk of tokens at a time. When gradients are wanted, the chunk's share of both gradients is formed
at once, while its logits exist, so that the backward pass has nothing to recompute: it only scales.
"""

from typing import Any

import torch
from torch import Tensor

CHUNK_LOGITS = 2**22  # logits held at a time: 16 MB in fp32


def cross_entropy_sum(x: Tensor, weight: Tensor, targets: Tensor, mask: Tensor | None) -> Tensor:
    """Sum of the nats of the loss-bearing tokens.

    Args:
        x: (tokens, d_model) hidden states.
        weight: (vocab, d_model), the head.
        targets: (tokens,) int64.
        mask: (tokens,) bool, whether each target bears loss; None: all do.
    """
    if not torch.is_grad_enabled():
        x, weight = x.detach(), weight.detach()  # so that no gradient is formed for nobody
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight = x.to(dtype), weight.to(dtype)
    return _CrossEntropySum.apply(x, weight, targets, mask)


class _CrossEntropySum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, mask: Tensor | None) -> Tensor:
        wants_x, wants_weight = ctx.needs_input_grad[:2]
        with torch.autocast(x.device.type, enabled=False):
            total = torch.zeros((), dtype=torch.float32, device=x.device)
            grad_x = torch.empty_like(x) if wants_x else None
            grad_weight = torch.zeros_like(weight, dtype=torch.float32) if wants_weight else None
            rows = max(1, CHUNK_LOGITS // weight.shape[0])
            for start in range(0, len(x), rows):
                chunk = slice(start, start + rows)
                logits = (x[chunk] @ weight.T).float()  # (rows, vocab)
                normaliser = logits.logsumexp(dim=-1, keepdim=True)
                nats = (normaliser - logits.gather(1, targets[chunk, None])).squeeze(1)
                bears_loss = None if mask is None else mask[chunk]
                total += nats.sum() if bears_loss is None else nats[bears_loss].sum()
                if grad_x is None and grad_weight is None:
                    continue
                grad_logits = logits.sub_(normaliser).exp_()  # softmax, then minus one at the target
                grad_logits.scatter_add_(1, targets[chunk, None], torch.full_like(normaliser, -1.0))
                if bears_loss is not None:
                    grad_logits *= bears_loss[:, None]
                grad_logits = grad_logits.to(x.dtype)
                if grad_x is not None:
                    torch.mm(grad_logits, weight, out=grad_x[chunk])
                if grad_weight is not None:
                    if weight.dtype == torch.float32:
                        grad_weight.addmm_(grad_logits.T, x[chunk])
                    else:
                        grad_weight += grad_logits.T @ x[chunk]
        ctx.save_for_backward(grad_x, grad_weight)
        ctx.weight_dtype = weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        grad_x, grad_weight = ctx.saved_tensors
        (scale,) = grad_outputs
        return (
            None if grad_x is None else (grad_x * scale).to(grad_x.dtype),
            None if grad_weight is None else (grad_weight * scale).to(ctx.weight_dtype),
            None,
            None,
        )
