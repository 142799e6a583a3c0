"""From logits to losses and their gradient: the part of the loss head between its matrix products.

A kernel takes some rows of logits and gives the objective and the nats of each row. Where the gradient is wanted, it replaces
the logits by the gradient of the objective.

* `torch` is a dozen of torch's operations, and the oracle of the other.
* `triton` is one pass of our own (`loss_kernel_triton.py`): each logit is read twice and written once.
"""

from collections.abc import Callable

import torch
from torch import Tensor

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
    """(objective, nats) of each row, both (rows,): 0 where a target bears no loss.

    Args:
        low_logits: (rows, vocab) in the dtype of the matrix products; replaced by the gradient if that is wanted.
        targets: (rows,) int64.
        bears_loss: (rows,) bool; None: all targets do.
        soft_cap, z_loss: see `cross_entropy_sum`.
        wants_gradient: whether to form the gradient.
    """
    targets = targets[:, None]
    logits = low_logits.to(torch.promote_types(low_logits.dtype, torch.float32))
    if soft_cap is not None:
        logits.div_(soft_cap).tanh_()
        slope = 1 - logits.square()
        logits.mul_(soft_cap)
    target_logits, highest = logits.gather(1, targets), logits.amax(dim=-1, keepdim=True)
    # from here on the block holds probabilities; the likeliest is at least 1/vocab, so its log is safe
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


def _triton_loss() -> LossKernel:
    from gpt_lightning.model.loss_kernel_triton import triton_loss  # not at the top: only CUDA has Triton

    return triton_loss


_LOSS_KERNELS: dict[str, Callable[[], LossKernel]] = {
    "torch": lambda: torch_loss,
    "triton": _triton_loss,
}
LOSS_KERNEL_CHOICES = (*_LOSS_KERNELS, "auto")


def choose_loss_kernel(wanted: str, device: torch.device) -> tuple[str, str]:
    """(name of the kernel, why). `auto` takes Triton's on CUDA where it can run, and torch's elsewhere.

    Raises:
        ValueError: there is no such kernel, or an explicit choice cannot run on this device.
    """
    if wanted not in LOSS_KERNEL_CHOICES:
        raise ValueError(f"trainer.loss_kernel is {wanted!r}: it must be one of {', '.join(LOSS_KERNEL_CHOICES)}.")
    obstacle = why_triton_is_unavailable(device)
    if wanted == "triton" and obstacle:
        raise ValueError(f"trainer.loss_kernel=triton cannot run: {obstacle}. Take trainer.loss_kernel=auto or torch.")
    if wanted != "auto":
        return wanted, "as configured"
    return ("torch", obstacle) if obstacle else ("triton", "Triton is installed")


def loss_kernel(name: str, dtype: torch.dtype) -> LossKernel:
    """The kernel of that name; fp64, which only tests use, always takes torch's."""
    return torch_loss if dtype == torch.float64 else _LOSS_KERNELS[name]()
