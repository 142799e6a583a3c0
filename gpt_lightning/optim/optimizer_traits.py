"""What the rest of the program must know of an optimizer: parameter groups, whether it can be sharded, the size of its state.

`OPTIMIZER_TRAITS` has an entry for each optimizer that ships. For another one the size of its state is measured in a trial step.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from inspect import signature
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from gpt_lightning.optim.trial_step import try_optimizer_step

_TRIAL_SIZE = 256  # at most, of each dimension of the parameter of a trial step


class StateSize(NamedTuple):
    """The state that an optimizer keeps of one parameter."""

    n_bytes: int
    """Of its moments."""
    n_tensors: int
    """In a checkpoint, the count of the steps included."""


@dataclass(frozen=True, kw_only=True)
class OptimizerTraits:
    """What an optimizer needs and can do."""

    state: Callable[[Tensor, Mapping[str, Any]], StateSize]
    """(parameter, its group) -> the size of the parameter's state. The parameter may be on the meta device."""
    muon: bool = False
    """Whether the matrices of the blocks are groups of their own, marked `muon`; see `parameter_groups`."""
    shardable: bool
    """Whether it can update parameters that are sharded among the ranks (FSDP2)."""
    fused: bool
    """Whether it has torch's option `fused`, with which a step unscales the gradients of 16-mixed by itself."""


def _adamw_state(parameter: Tensor, group: Mapping[str, Any]) -> StateSize:
    return StateSize(2 * parameter.nbytes, 3)


def _muon_adamw_state(parameter: Tensor, group: Mapping[str, Any]) -> StateSize:
    return StateSize(parameter.nbytes, 1) if group.get("muon") else _adamw_state(parameter, group)


def _adamw_8bit_state(parameter: Tensor, group: Mapping[str, Any]) -> StateSize:
    """A byte for each number and an fp32 scale for each 256 of them; fp32 below 4,096 numbers."""
    n = parameter.numel()
    return StateSize(2 * (n + 4 * math.ceil(n / 256)) if n >= 4096 else 8 * n, 5)


ADAMW = OptimizerTraits(state=_adamw_state, shardable=True, fused=True)
ADAMW_8BIT = OptimizerTraits(state=_adamw_8bit_state, shardable=False, fused=False)
MUON_ADAMW = OptimizerTraits(state=_muon_adamw_state, muon=True, shardable=True, fused=True)
OPTIMIZER_TRAITS = {
    "torch.optim.adamw.AdamW": ADAMW,
    "bitsandbytes.optim.adamw.AdamW8bit": ADAMW_8BIT,
    "gpt_lightning.optim.muon.MuonAdamW": MUON_ADAMW,
}
"""By the module and the name of the class."""


def optimizer_traits(make_optimizer: partial[Optimizer]) -> OptimizerTraits:
    """The traits of the optimizer that is made: its entry in OPTIMIZERS, or what can be found out about it.

    Args:
        make_optimizer: an optimizer's class and its settings; called with parameter groups it gives the optimizer.
    """
    made: Any = make_optimizer.func
    return OPTIMIZER_TRAITS.get(f"{made.__module__}.{made.__qualname__}") or OptimizerTraits(
        state=partial(_state_after_trial, make_optimizer),
        shardable=made.__module__.startswith("torch."),
        fused="fused" in signature(made).parameters,
    )


def _state_after_trial(make_optimizer: partial[Optimizer], parameter: Tensor, group: Mapping[str, Any]) -> StateSize:
    """The state of a smaller parameter with as many dimensions, scaled to the size of this one.

    Raises:
        ValueError: the optimizer cannot make the step.
    """
    shape = tuple(min(size, _TRIAL_SIZE) for size in parameter.shape)
    bytes_per_number, n_tensors = _trial_state(make_optimizer, shape, parameter.dtype)
    return StateSize(round(bytes_per_number * parameter.numel()), n_tensors)


@lru_cache(maxsize=32)  # most parameters of a model have a few shapes
def _trial_state(make_optimizer: partial[Optimizer], shape: tuple[int, ...], dtype: torch.dtype) -> tuple[float, int]:
    """(bytes of state for each number of a parameter, tensors) after a step."""
    parameter = torch.empty(shape, dtype=dtype, device="meta")
    made: Any = make_optimizer.func
    try:
        optimizer = try_optimizer_step(make_optimizer, [{"params": [parameter]}], None, torch.device("cpu"))
    except ValueError as error:
        raise ValueError(
            f"the size of {made.__name__}'s state is not known: its trial step on a parameter of shape {shape} fails: {error}."
        ) from error
    tensors = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    return sum(tensor.nbytes for tensor in tensors if tensor.dim()) / parameter.numel(), len(tensors)
