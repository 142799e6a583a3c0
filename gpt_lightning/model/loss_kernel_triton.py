"""Losses and gradients of logits in one Triton kernel, with one program per row.

The first pass over a row computes its normaliser with an online softmax (Milakov & Gimelshein, arXiv:1805.02867). The
second replaces the logits by the gradient. Sums have a fixed order without atomic operations, so results are
reproducible bit for bit.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 4096  # logits that a program processes at a time


@triton.jit
def _row_loss(  # type: ignore[no-untyped-def]
    logits,
    targets,
    bears_loss,
    objectives,
    nats,
    vocab_size,
    stride,
    soft_cap,
    z_loss,
    MASKED: tl.constexpr,
    CAPPED: tl.constexpr,
    WANTS_GRADIENT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    logits += row * stride
    target = tl.load(targets + row)
    bears = tl.load(bears_loss + row) != 0 if MASKED else True

    highest = float("-inf")
    total = 0.0  # of exp(logit - highest)
    target_logit = 0.0
    for start in range(0, vocab_size, BLOCK):
        column = start + tl.arange(0, BLOCK)
        logit = tl.load(logits + column, mask=column < vocab_size, other=0.0).to(tl.float32)
        if CAPPED:
            logit = soft_cap * (1 - 2 / (tl.exp(2 * logit / soft_cap) + 1))  # tanh
        logit = tl.where(column < vocab_size, logit, float("-inf"))
        higher = tl.maximum(highest, tl.max(logit, 0))
        total = total * tl.exp(highest - higher) + tl.sum(tl.exp(logit - higher), 0)
        target_logit += tl.sum(tl.where(column == target, logit, 0.0), 0)
        highest = higher
    normaliser = highest + tl.log(total)
    loss = normaliser - target_logit
    tl.store(nats + row, tl.where(bears, loss, 0.0))
    tl.store(objectives + row, tl.where(bears, loss + z_loss * normaliser * normaliser, 0.0))

    if WANTS_GRADIENT:
        for start in range(0, vocab_size, BLOCK):
            column = start + tl.arange(0, BLOCK)
            logit = tl.load(logits + column, mask=column < vocab_size, other=0.0).to(tl.float32)
            if CAPPED:
                squeezed = 1 - 2 / (tl.exp(2 * logit / soft_cap) + 1)
                logit = soft_cap * squeezed
            gradient = tl.exp(logit - normaliser) * (1 + 2 * z_loss * normaliser)
            gradient = tl.where(column == target, gradient - 1, gradient)
            if CAPPED:
                gradient *= 1 - squeezed * squeezed
            gradient = tl.where(bears, gradient, 0.0)
            tl.store(logits + column, gradient.to(logits.dtype.element_ty), mask=column < vocab_size)


def triton_loss(
    logits: Tensor,
    targets: Tensor,
    bears_loss: Tensor | None,
    soft_cap: float | None,
    z_loss: float,
    wants_gradient: bool,
) -> tuple[Tensor, Tensor]:
    """As `loss_kernels.torch_loss`, for logits of at most fp32 precision."""
    rows, vocab_size = logits.shape
    nats = torch.empty(rows, dtype=torch.float32, device=logits.device)
    objectives = torch.empty_like(nats) if z_loss else nats
    _row_loss[(rows,)](
        logits,
        targets,
        targets if bears_loss is None else bears_loss.view(torch.uint8),
        objectives,
        nats,
        vocab_size,
        logits.stride(0),
        soft_cap or 1.0,
        z_loss,
        MASKED=bears_loss is not None,
        CAPPED=soft_cap is not None,
        WANTS_GRADIENT=wants_gradient,
        BLOCK=min(_BLOCK, triton.next_power_of_2(vocab_size)),
        num_warps=8,
    )
    return objectives, nats
