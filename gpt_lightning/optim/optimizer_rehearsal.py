"""Try an optimizer step on copies of parameters before a run depends on it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from gpt_lightning.optim.step_counter_device import place_step_counters


def rehearse_optimizer_step(
    make_optimizer: Callable[[list[dict[str, Any]]], Optimizer],
    groups: Sequence[Mapping[str, Any]],
    saved: Mapping[str, Any] | None,
    device: torch.device,
) -> Optimizer:
    """Run one step on a copy of the smallest parameter of each group.

    Args:
        make_optimizer: Parameter groups -> the optimizer.
        groups: Parameter groups of the model.
        saved: State of an optimizer with the same groups, possibly with other options; None: no state yet.
        device: Where the run trains.

    Returns:
        The optimizer of the copies, after the step.

    Raises:
        ValueError: The step fails; the message gives the reason.
    """
    trial: list[dict[str, Any]] = []
    states: dict[int, Mapping[str, Any]] = {}
    for n, group in enumerate(groups):
        k = min(range(len(group["params"])), key=lambda k: group["params"][k].numel())
        parameter = torch.nn.Parameter(torch.zeros_like(group["params"][k], device=device))
        parameter.grad = torch.zeros_like(parameter)
        trial.append({**group, "params": [parameter]})
        if saved and (state := saved["state"].get(saved["param_groups"][n]["params"][k])):
            states[n] = {key: _copy(value, device) for key, value in state.items()}
    try:
        optimizer = make_optimizer(trial)
        # load the state, because some optimizers pack it for saving; but keep the current options
        optimizer.load_state_dict({**optimizer.state_dict(), "state": states})
        place_step_counters(optimizer)
        optimizer.step()
        return optimizer
    except KeyError as error:
        raise ValueError(f"its state lacks {error.args[0]}") from error
    except Exception as error:  # each optimizer raises different exceptions
        raise ValueError(" ".join(str(error).split()).rstrip(".") or type(error).__name__) from error


def _copy(value: Any, device: torch.device) -> Any:
    return value.to(device, copy=True) if isinstance(value, Tensor) else value
