"""How the optimizer trains a model's weights."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer

from gpt_lightning.model import GPT
from gpt_lightning.optim import parameter_groups


@dataclass(frozen=True, kw_only=True)
class OptimizationSettings:
    """How `LitGPT` turns gradients into steps.

    Raises:
        ValueError: the largest gradient norm is not above 0.
    """

    make_optimizer: Callable[[list[dict[str, Any]]], Optimizer]
    """Parameter groups -> the optimizer; its learning rate is the peak."""
    make_groups: Callable[[GPT], list[dict[str, Any]]] = parameter_groups
    """The model -> its parameter groups."""
    schedule: Callable[[int], float]
    """Steps done -> share of the peak learning rate, 0 to 1."""
    gradient_clip: float
    """The largest global L2 norm of a step's gradient."""
    skip_spikes: bool = False
    """Leave the weights as they are in steps whose loss or gradient norm stands out; see `SpikeDetector`."""

    def __post_init__(self) -> None:
        if not self.gradient_clip > 0:
            raise ValueError(f"gradient_clip is {self.gradient_clip}: it must be above 0.")
