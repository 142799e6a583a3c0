"""Whether an optimizer can make a step, tried on copies before a run depends on it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from gpt_lightning.optim.step_counters import place_step_counters


def try_optimizer_step(
    make_optimizer: Callable[[list[dict[str, Any]]], Optimizer],
    groups: Sequence[Mapping[str, Any]],
    saved: Mapping[str, Any] | None,
    device: torch.device,
) -> Optimizer:
    """Make a step on a copy of the smallest parameter of each group.

    Args:
        make_optimizer: parameter groups -> the optimizer.
        groups: of the model.
        saved: state of an optimizer of the same groups, which may have had other options; None: it has none yet.
        device: where the run trains.

    Returns:
        the optimizer of the copies, after the step.

    Raises:
        ValueError: the step fails. The message says why.
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
        # as it would be loaded, as some optimizers pack their state to save it; but with the options of now
        optimizer.load_state_dict({**optimizer.state_dict(), "state": states})
        place_step_counters(optimizer)
        optimizer.step()
        return optimizer
    except KeyError as error:
        raise ValueError(f"there is no {error.args[0]} in its state") from error
    except Exception as error:  # each optimizer has its own
        raise ValueError(" ".join(str(error).split()).rstrip(".") or type(error).__name__) from error


def _copy(value: Any, device: torch.device) -> Any:
    return value.to(device, copy=True) if isinstance(value, Tensor) else value
