"""Properties of optimizers: required parameter groups, support for sharding, and size of the state.

`MuonAdamW` has its traits as an attribute. `OPTIMIZER_TRAITS` has those of the optimizers that are defined elsewhere.
For other optimizers, the size of the state is measured with a trial step.
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

from gpt_lightning.optim.optimizer_rehearsal import rehearse_optimizer_step

_TRIAL_SIZE = 256  # maximum size of each dimension of the parameter in a trial step


class StateSize(NamedTuple):
    """Size of the state that an optimizer keeps per parameter."""

    n_bytes: int
    """Size of the moments, in bytes."""
    n_tensors: int
    """Number of tensors in a checkpoint, including the step counter."""


@dataclass(frozen=True, kw_only=True)
class OptimizerTraits:
    """What an optimizer requires and supports."""

    state: Callable[[Tensor, Mapping[str, Any]], StateSize]
    """(parameter, parameter group) -> size of the parameter's state. The parameter may be on the meta device."""
    muon: bool = False
    """Whether the matrices of the blocks form separate groups, marked `muon`; see `parameter_groups`."""
    shardable: bool
    """Whether the optimizer can update parameters that are sharded over ranks (FSDP2)."""
    fused: bool
    """Whether the optimizer has torch's option `fused`. With this option, its step unscales the gradients of 16-mixed."""
    verify_tolerance: float = 1e-5
    """Largest relative difference between the losses of two runs that split the global batch differently, in fp32."""


def adamw_state(parameter: Tensor, group: Mapping[str, Any]) -> StateSize:
    """Return the size of both moments and the step counter."""
    return StateSize(2 * parameter.nbytes, 3)


def _adamw_8bit_state(parameter: Tensor, group: Mapping[str, Any]) -> StateSize:
    """One byte per element plus one fp32 scale per 256 elements; fp32 for parameters of fewer than 4,096 elements."""
    n = parameter.numel()
    return StateSize(2 * (n + 4 * math.ceil(n / 256)) if n >= 4096 else 8 * n, 5)


ADAMW = OptimizerTraits(state=adamw_state, shardable=True, fused=True)
ADAMW_8BIT = OptimizerTraits(state=_adamw_8bit_state, shardable=False, fused=False)
OPTIMIZER_TRAITS = {
    "torch.optim.adamw.AdamW": ADAMW,
    "bitsandbytes.optim.adamw.AdamW8bit": ADAMW_8BIT,
}
"""Key: module and name of the class."""


def optimizer_traits(make_optimizer: partial[Optimizer]) -> OptimizerTraits:
    """Return the traits of an optimizer: its entry in OPTIMIZER_TRAITS, its attribute `traits`, or what can be
    determined from its class.

    Args:
        make_optimizer: The class with its settings; calling it with parameter groups makes the optimizer.
    """
    made: Any = make_optimizer.func
    known = OPTIMIZER_TRAITS.get(f"{made.__module__}.{made.__qualname__}", getattr(made, "traits", None))
    return (
        known
        if isinstance(known, OptimizerTraits)
        else OptimizerTraits(
            state=partial(_state_after_trial, make_optimizer),
            shardable=made.__module__.startswith("torch."),
            fused="fused" in signature(made).parameters,
        )
    )


def _state_after_trial(make_optimizer: partial[Optimizer], parameter: Tensor, group: Mapping[str, Any]) -> StateSize:
    """Measure the state of a smaller parameter with the same number of dimensions, and scale it up.

    Raises:
        ValueError: The trial step fails.
    """
    shape = tuple(min(size, _TRIAL_SIZE) for size in parameter.shape)
    bytes_per_number, n_tensors = _trial_state(make_optimizer, shape, parameter.dtype)
    return StateSize(round(bytes_per_number * parameter.numel()), n_tensors)


@lru_cache(maxsize=32)  # a model's parameters have only a few shapes
def _trial_state(make_optimizer: partial[Optimizer], shape: tuple[int, ...], dtype: torch.dtype) -> tuple[float, int]:
    """Return (bytes of state per element of the parameter, number of tensors) after one step."""
    parameter = torch.empty(shape, dtype=dtype, device="meta")
    made: Any = make_optimizer.func
    try:
        optimizer = rehearse_optimizer_step(make_optimizer, [{"params": [parameter]}], None, torch.device("cpu"))
    except ValueError as error:
        raise ValueError(
            f"the size of {made.__name__}'s state is unknown, because a trial step on a parameter of shape {shape} "
            f"failed: {error}."
        ) from error
    tensors = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    return sum(tensor.nbytes for tensor in tensors if tensor.dim()) / parameter.numel(), len(tensors)
