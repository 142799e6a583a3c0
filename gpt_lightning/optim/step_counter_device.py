"""Device of the optimizer's step counters."""

from torch import Tensor
from torch.optim import Optimizer


def place_step_counters(optimizer: Optimizer) -> None:
    """After a state with other options was loaded, move the step counters to the device that this optimizer needs.

    A fused or capturable step reads the counter on the parameter's device. Any other step reads it on the CPU, without
    waiting for the device.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            if isinstance(count := state.get("step"), Tensor):
                on_device = group.get("fused") or group.get("capturable")
                state["step"] = count.to(parameter.device if on_device else "cpu")
