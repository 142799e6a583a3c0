"""Typed settings of the optimizer and of the learning rate schedule. A wrong setting is found before torch is imported."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from running.config import allowed_targets
from running.config.registered_targets import REGISTERED_TARGETS
from running.config.settings_parser import CountOrZero, NumberOrZero, PositiveNumber, Share, parse


@dataclass(frozen=True, kw_only=True)
class AdamOptions:
    """Options that AdamW and its variants share."""

    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    """Decay rates of the means of the gradient and of the squared gradient: two numbers, 0 or more and below 1."""
    eps: NumberOrZero = 1e-8
    """Added to the root of the mean square, so that the denominator is never 0."""
    weight_decay: NumberOrZero = 0.01
    """Decoupled weight decay of matrices and embeddings. Norms and biases have none."""

    def __post_init__(self) -> None:
        betas: Any = self.betas
        if not (isinstance(betas, list) and len(betas) == 2 and all(map(_is_beta, betas))):
            raise ValueError(f"optimizer.betas is {betas!r}: it must be a list of two numbers, 0 or more and below 1.")


@dataclass(frozen=True, kw_only=True)
class AdamWOptions(AdamOptions):
    """Options of `torch.optim.AdamW`."""

    fused: bool | None = None
    """Update all parameters with one kernel; null: torch chooses."""
    foreach: bool | None = None
    """Update lists of parameters at once; null: torch chooses."""
    amsgrad: bool = False
    """Divide by the largest mean square so far."""
    maximize: bool = False
    """Maximise the objective."""
    capturable: bool = False
    """Whether a step can be captured in a CUDA graph."""
    differentiable: bool = False
    """Whether gradients can flow through a step."""


@dataclass(frozen=True, kw_only=True)
class AdamW8bitOptions(AdamOptions):
    """Options of `bitsandbytes.optim.AdamW8bit`."""

    min_8bit_size: CountOrZero = 4096
    """Parameters with fewer elements keep a state in fp32."""
    percentile_clipping: CountOrZero = 100
    """Clip gradients at this percentile of the last 100 norms; 100: no clipping. Older versions only."""
    block_wise: bool = True
    """Quantise blocks separately. Older versions only."""
    is_paged: bool = False
    """Whether the state may be moved to the memory of the CPU."""


@dataclass(frozen=True, kw_only=True)
class MuonAdamWOptions(AdamOptions):
    """Options of `gpt_lightning.optim.MuonAdamW`."""

    momentum: Share = 0.95
    """Nesterov momentum of Muon."""
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    """As for AdamW, for the parameters that AdamW updates."""
    weight_decay: NumberOrZero = 0.1
    """Decoupled weight decay of all matrices and of embeddings. Norms and biases have none."""
    fused: bool | None = False
    """Update all parameters of AdamW with one kernel; null: torch chooses."""


OPTIMIZER_OPTIONS: dict[str, type[AdamOptions]] = {
    "torch.optim.AdamW": AdamWOptions,
    "bitsandbytes.optim.AdamW8bit": AdamW8bitOptions,
    "gpt_lightning.optim.MuonAdamW": MuonAdamWOptions,
}
"""Class -> options of the class, for the optimizers in conf/optimizer. The options of other optimizers are checked when
the optimizer is built.
"""


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimizer. See conf/optimizer."""

    target: str
    """Dotted name of the class, written `_target_`."""
    lr: PositiveNumber
    """Peak learning rate."""
    options: Mapping[str, Any]
    """The other keyword arguments of the class."""

    @classmethod
    def of(cls, section: Any) -> "OptimizerConfig":
        """Parse the section `optimizer`.

        Args:
            section: `_target_` and keyword arguments.

        Raises:
            ValueError: the target may not be called from a config, or an argument is unknown or wrong.
        """
        if not isinstance(section, Mapping) or "_target_" not in section:
            raise ValueError("optimizer has no _target_: it must name a class, as conf/optimizer does.")
        target = str(section["_target_"])
        allowed = tuple(f"{package}." for package in allowed_targets.OPTIMIZERS)
        if not target.startswith(allowed) and target not in REGISTERED_TARGETS["optimizer"]:
            allowed_targets.resolve_optimizer(section)  # raises the error, without an import
        options = {key: value for key, value in section.items() if key not in ("_target_", "lr")}
        if target in OPTIMIZER_OPTIONS:
            parse(OPTIMIZER_OPTIONS[target], options, name="optimizer")
        given = {"lr": section["lr"]} if "lr" in section else {}
        return parse(cls, {"target": target, **given, "options": options}, name="optimizer")

    @property
    def node(self) -> dict[str, Any]:
        """`_target_` and keyword arguments, as `allowed_targets.resolve_optimizer` expects them."""
        return {"_target_": self.target, "lr": self.lr, **self.options}


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """The learning rate over the run. `learning_rate_schedule` checks the values against max_steps."""

    shape: str
    """Shape of the decay: cosine, linear, wsd (warm-up, stable, decay), constant, or a shape that a module registers."""
    warmup_steps: Any
    """Number of steps in which the learning rate rises from 0; below 1: a fraction of max_steps."""
    final_ratio: float = 1.0
    """Learning rate at the end as a fraction of the peak learning rate."""
    decay_share: float | None = None
    """Fraction of the run in which the learning rate of `wsd` decays; null for the other shapes."""


def _is_beta(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1
