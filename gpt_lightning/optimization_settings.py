"""Settings of optimizer, schedule and gradient clipping."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer

from gpt_lightning.model import GPT
from gpt_lightning.optim import parameter_groups


@dataclass(frozen=True, kw_only=True)
class OptimizationSettings:
    """How `LitGPT` updates the weights.

    Raises:
        ValueError: gradient_clip is not above 0.
    """

    make_optimizer: Callable[[list[dict[str, Any]]], Optimizer]
    """Parameter groups -> the optimizer, whose learning rate is the peak."""
    make_groups: Callable[[GPT], list[dict[str, Any]]] = parameter_groups
    """Model -> its parameter groups."""
    schedule: Callable[[int], float]
    """Completed steps -> share of the peak learning rate, 0 to 1."""
    gradient_clip: float | None
    """Maximum global L2 norm of a step's gradient; None: no limit."""
    skip_spikes: bool = False
    """Skip steps whose loss or gradient norm is an outlier; see `SpikeDetector`."""

    def __post_init__(self) -> None:
        if self.gradient_clip is not None and not self.gradient_clip > 0:
            raise ValueError(f"gradient_clip is {self.gradient_clip}: it must be above 0.")
