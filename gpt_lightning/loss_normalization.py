"""Rescale gradients from sums over tokens to the mean over the loss-bearing tokens of a global batch.

The number of loss-bearing tokens of a global batch is known only after its last micro-batch, on all ranks. Until then,
sums are divided by a number that is known in advance: the number of targets. The state of the gradients at each hook:

    forward pass of a micro-batch   in the first of a step, the gradients that the previous step used;
                                    in later ones, as after a backward pass
    zero_grad                       None, before the backward pass of a step's first micro-batch
    after each backward pass        sum over the micro-batches so far of the gradient of
                                    (summed objective / targets of a micro-batch / micro-batches of a step);
                                    in 16-mixed, times the scale of the GradScaler;
                                    averaged over the ranks: by FSDP each time, by DDP after the last micro-batch
    on_before_optimizer_step        gradient of (summed objective / targets) of the global batch: summed over
                                    micro-batches, reduced over ranks, unscaled, not clipped
    after                           gradient of (summed objective / loss-bearing tokens) of the global batch, clipped;
    configure_gradient_clipping     None if the step is skipped
    the optimizer's step            the same
"""

from torch import Tensor


def loss_normalization(n_targets: int, n_loss_bearing: Tensor) -> Tensor:
    """Return the factor that turns a mean over all targets into a mean over the loss-bearing targets, a scalar.

    Args:
        n_targets: Number of targets in the global batch, which is sequences times max_seq_len.
        n_loss_bearing: Number of targets that bear loss, a scalar. If it is 0, the mean and its gradient are 0.
    """
    return n_targets / n_loss_bearing.clamp(min=1)
