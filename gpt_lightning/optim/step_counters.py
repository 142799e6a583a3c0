"""Where an optimizer counts the steps of each parameter."""

from torch import Tensor
from torch.optim import Optimizer


def place_step_counters(optimizer: Optimizer) -> None:
    """Move the counts to where the optimizer's options want them, though its state may come from one with others.

    A fused or capturable step reads a count on the parameter's device; any other step reads it on the CPU, without waiting for
    the device.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            if isinstance(count := state.get("step"), Tensor):
                on_device = group.get("fused") or group.get("capturable")
                state["step"] = count.to(parameter.device if on_device else "cpu")
