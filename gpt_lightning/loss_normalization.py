"""From sums over tokens to the gradient of the mean over the loss-bearing tokens of a global batch.

How many tokens of a global batch bear loss is known only when its last micro-batch is done, on all ranks. Until then each sum is
divided by what is known before: the number of targets. The state of the gradients, from hook to hook:

    forward pass of a micro-batch         at the first of a step, those that the last step has used; before any other, as after a
                                          backward pass
    zero_grad                             None, before the backward pass of a step's first micro-batch
    after each backward pass              sum over the micro-batches so far of the gradient of
                                          (summed objective / targets of a micro-batch / micro-batches of a step),
                                          in 16-mixed times the scale of the GradScaler;
                                          reduced over the ranks, to their mean: by FSDP each time, by DDP the last time
    on_before_optimizer_step              gradient of (summed objective / targets) of the global batch:
                                          summed over micro-batches, reduced over ranks, unscaled by the GradScaler, not clipped
    after configure_gradient_clipping     gradient of (summed objective / loss-bearing tokens) of the global batch, clipped;
                                          None if the step is left out
    the optimizer's step                  the same
"""

from torch import Tensor


def loss_normalization(n_targets: int, n_loss_bearing: Tensor) -> Tensor:
    """The factor that makes a mean over all targets one over those that bear loss, a scalar.

    Args:
        n_targets: in the global batch, which is sequences times max_seq_len.
        n_loss_bearing: how many of them bear loss, a scalar. If none does, the mean is 0 and so is its gradient.
    """
    return n_targets / n_loss_bearing.clamp(min=1)
