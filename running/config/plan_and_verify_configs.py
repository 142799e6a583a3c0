"""Typed settings of plan.py and verify.py, in addition to the settings of a run."""

from dataclasses import dataclass
from typing import Annotated, Any

from running.config.run_config import PlanConfig
from running.config.settings_parser import AtLeast, Count, CountOrZero


@dataclass(frozen=True, kw_only=True)
class HardwareConfig:
    """The GPU of a choice of conf/hardware."""

    device: Any = None
    """Name of the GPU, as plan.device."""
    mfu: Any = None
    """Model FLOPs utilization (MFU): the fraction of the GPU's peak FLOP/s that a run reaches, as plan.mfu."""
    mfu_from: str = ""
    """Where this value comes from."""


@dataclass(frozen=True, kw_only=True)
class PlanCommandConfig:
    """Settings of plan.py, in addition to the settings of the run."""

    plan: PlanConfig
    hardware: HardwareConfig | None = None
    """null: no hardware was chosen."""
    mix_design: Count | None = None
    """Number of mixes: design this many training runs for a mix law instead of planning a run."""


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """Settings of `verify`."""

    steps: Annotated[int, AtLeast(4)]
    """Steps of each of the three runs; two of them are killed halfway and resumed."""
    devices: Count
    """Ranks of the third run after it resumes."""
    micro_batch: Count | None
    """Micro-batch of the third run after it resumes; null: the next smaller number that divides the global batch."""
    workers: CountOrZero
    """Data-loading processes of both killed runs after they resume."""


@dataclass(frozen=True, kw_only=True)
class VerifyCommandConfig:
    """Settings of verify.py, in addition to the settings of the run."""

    verify: VerifyConfig
