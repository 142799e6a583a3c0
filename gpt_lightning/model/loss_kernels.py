"""Compute losses and gradients from logits: the part of the loss head between its matrix products.

A kernel takes some rows of logits and returns the objective and the loss in nats of each row. If the gradient is
needed, it replaces the logits by the gradient of the objective.

* `torch` consists of a dozen torch operations; tests compare the other kernel with it.
* `triton` is a single fused kernel (`loss_kernel_triton.py`), which reads each logit twice and writes it once.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from gpt_lightning.model.part_registry import LOSS_KERNELS, check_loss_kernel
from gpt_lightning.model.triton_check import why_triton_is_unavailable

LossKernel = Callable[[Tensor, Tensor, Tensor | None, float | None, float, bool], tuple[Tensor, Tensor]]


def torch_loss(
    low_logits: Tensor,
    targets: Tensor,
    bears_loss: Tensor | None,
    soft_cap: float | None,
    z_loss: float,
    wants_gradient: bool,
) -> tuple[Tensor, Tensor]:
    """Compute the loss of each row, and optionally the gradient.

    Args:
        low_logits: (rows, vocab) in the dtype of the matrix products; replaced by the gradient if wants_gradient is
            True.
        targets: (rows,) int64.
        bears_loss: (rows,) bool; None: all targets bear loss.
        soft_cap, z_loss: See `cross_entropy_sum`.
        wants_gradient: Whether to compute the gradient.

    Returns:
        (objective, nats), both (rows,), 0 where a target bears no loss.
    """
    targets = targets[:, None]
    logits = low_logits.to(torch.promote_types(low_logits.dtype, torch.float32))
    if soft_cap is not None:
        logits.div_(soft_cap).tanh_()
        slope = 1 - logits.square()
        logits.mul_(soft_cap)
    target_logits, highest = logits.gather(1, targets), logits.amax(dim=-1, keepdim=True)
    # from here on `logits` holds probabilities; the largest is at least 1/vocab, so its logarithm is safe
    probabilities = torch.softmax(logits, dim=-1, out=logits)
    normaliser = highest - probabilities.amax(dim=-1, keepdim=True).log()
    nats = normaliser - target_logits
    objective = nats + z_loss * normaliser.square() if z_loss else nats
    if bears_loss is not None:
        nats, objective = (loss.where(bears_loss[:, None], 0.0) for loss in (nats, objective))
    if wants_gradient:
        gradient = probabilities
        if z_loss:
            gradient *= 1 + 2 * z_loss * normaliser
        gradient.scatter_add_(1, targets, torch.full_like(normaliser, -1.0))
        if soft_cap is not None:
            gradient *= slope
        if bears_loss is not None:
            gradient.masked_fill_(~bears_loss[:, None], 0.0)
        if gradient.dtype != low_logits.dtype:
            low_logits.copy_(gradient)
    return objective[:, 0], nats[:, 0]


def choose_loss_kernel(wanted: str, device: torch.device) -> tuple[str, str]:
    """Choose a kernel. `auto` means Triton on CUDA if it is available, otherwise torch.

    Args:
        wanted: A key of LOSS_KERNELS, or auto.
        device: Where the loss is computed.

    Returns:
        (name of the kernel, reason for the choice)

    Raises:
        ValueError: The kernel is unknown, or is triton and Triton is not available on this device.
    """
    check_loss_kernel(wanted)
    obstacle = why_triton_is_unavailable(device)
    if wanted == "triton" and obstacle:
        raise ValueError(
            f"trainer.loss_kernel is triton, but Triton is not available: {obstacle}. Use trainer.loss_kernel=auto or "
            "torch."
        )
    if wanted != "auto":
        return wanted, "as configured"
    return ("torch", obstacle) if obstacle else ("triton", "Triton is installed")


def loss_kernel(name: str, dtype: torch.dtype) -> LossKernel:
    """Return a kernel by name; for fp64, which only tests use, always that of torch."""
    return torch_loss if dtype == torch.float64 else LOSS_KERNELS[name]
