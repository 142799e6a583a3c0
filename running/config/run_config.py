"""Typed settings of a training run: conf/train.yaml and the command line, parsed once and checked before torch is
imported."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from data_modules.order.curriculum import Curriculum
from running.config import compose
from running.config.callback_configs import check_known_callbacks
from running.config.own_imports import check_imports
from running.config.path_and_name_settings import check_names
from running.config.settings_parser import Count, CountOrZero, PositiveNumber, build_section, parse

if TYPE_CHECKING:
    from gpt_lightning.model import GPTConfig


_OF_PLAN_AND_VERIFY = ("plan", "mix_design", "verify")


@dataclass(frozen=True, kw_only=True)
class BranchConfig:
    """The run and the step where a run branches off; both are set or neither is."""

    run: Path | None = None
    step: Any = None


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How data is prepared and loaded."""

    prepare: Literal["never", "missing"] = "never"
    verify: bool = True
    """Compare every byte of the shards with source.json before training."""
    limit_tokens: dict[str, Any] = field(default_factory=dict)
    """Tokens to prepare, by source; other sources use the limit in conf/source."""
    workers: CountOrZero = 0
    """Number of processes that prefetch."""
    val_sequences: Count | None = None
    """Number of validation sequences per source; None: all."""


@dataclass(frozen=True, kw_only=True)
class RunTokenizer:
    """The tokenizer of a run. See conf/tokenizer."""

    name: str
    model_vocab_size: Any = None
    train_on: Any = None
    train_mb: Any = None


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """Devices, precision and kernels. See conf/trainer."""

    accelerator: str
    devices: Count
    """Processes per machine."""
    num_nodes: Count
    """Number of machines."""
    strategy: Literal["auto", "ddp", "fsdp"]
    precision: str
    compile: bool
    loss_kernel: str
    recompute: Literal["none", "blocks"]
    deterministic: bool

    @property
    def world_size(self) -> int:
        """Total number of processes."""
        return self.devices * self.num_nodes


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """What plan.py assumes about the devices; see conf/plan.yaml. `estimate_costs` checks it."""

    device: Any
    mfu: Any
    """Model FLOPs utilisation: the share of the device's peak."""
    """Model FLOPs utilisation, as a fraction of the device's peak."""
    price_per_hour: Any
    """Price of one device per hour, in any currency; None: unknown."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All settings of a training run. `RunConfig.of` parses them."""

    name: Any
    runs_dir: Path
    run_dir: Path
    sweep_dir: Path
    jobs_at_once: Count
    data_dir: Path
    seed: CountOrZero
    max_steps: Count
    global_batch: Count
    """Sequences in one optimizer step, over all ranks."""
    micro_batch: Count
    """Sequences in one forward pass on one rank."""
    max_hours: PositiveNumber | None
    """Wall-clock limit in hours; None: no limit."""
    gradient_clip: PositiveNumber | None
    """Maximum norm of the gradient; None: no limit."""
    on_spike: Literal["train", "skip"]
    base_width: Count | None
    """The d_model for which the learning rate was tuned; None: model.d_model."""
    init_from: Path | None
    resume: Any
    branch: BranchConfig
    data: DataConfig
    log_every: Count
    """Steps between two rows of metrics."""
    val_every: Count
    """Steps between two validations."""
    callbacks: dict[str, Any]
    tokenizer: RunTokenizer
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    curriculum: Curriculum
    trainer: TrainerConfig
    logger: Any = None
    imports: list[str] = field(default_factory=list)
    """The user's own modules that register parts; see `own_imports`."""
    settings: Mapping[str, Any]
    """The composed settings as nested dicts, as config.yaml records them."""

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "RunConfig":
        """Parse the composed settings of conf/train.yaml and a command line.

        Settings of plan.py and verify.py are ignored.

        Args:
            settings: nested dicts, as composed.

        Raises:
            ValueError: a setting is unknown, missing or wrong, or two settings contradict each other.
        """
        check_names(settings)
        check_imports(settings)
        settings = {key: value for key, value in settings.items() if key not in _OF_PLAN_AND_VERIFY}
        known = {
            key: value for key, value in settings.items() if key not in ("model", "sources", "hardware", "curriculum")
        }
        curriculum = build_section(Curriculum, "curriculum", settings["curriculum"])
        return parse(cls, known | {"curriculum": curriculum, "settings": settings})

    def __post_init__(self) -> None:
        for mix in self.curriculum.mixes:
            if mix in compose.group_choices("source"):
                raise ValueError(
                    f"curriculum.mixes.{mix}: {mix} is the name of a source; choose another name for the mix."
                )
        if not isinstance(self.resume, str):
            raise ValueError(f"resume is {self.resume!r}: it must be auto, never, or the path of a checkpoint.")
        if self.branch.run is None and self.branch.step is not None:
            raise ValueError(f"branch.step is {self.branch.step}, but branch.run is not set: set both or neither.")
        if "_target_" not in self.optimizer:
            raise ValueError("optimizer has no _target_: it must name a class, as conf/optimizer does.")
        if "checkpoints" not in self.callbacks:
            raise ValueError("callbacks.checkpoints is missing: a run without checkpoints could not be resumed.")
        check_known_callbacks(self.callbacks)
        self._check_batch()

    @cached_property
    def model(self) -> "GPTConfig":
        """Sizes and choices of the model; its `eot_id` is not known yet.

        This imports torch, because choices name modules.

        Raises:
            ValueError: the model's settings contradict each other.
        """
        from gpt_lightning.model import GPTConfig

        return build_section(GPTConfig, "model", self.settings["model"], eot_id=0)

    @property
    def accumulation_steps(self) -> int:
        """Micro-batches per optimizer step on each rank."""
        return self.global_batch // (self.micro_batch * self.trainer.world_size)

    @property
    def tokens_per_step(self) -> int:
        """Tokens per optimizer step, over all ranks."""
        return self.global_batch * self.model.max_seq_len

    @property
    def optimizer_target(self) -> str:
        """Dotted name of the optimizer's class."""
        return str(self.optimizer["_target_"])

    def with_precision(self, precision: str) -> "RunConfig":
        """The same run with `auto` replaced by the precision that was chosen, as config.yaml records it.

        Args:
            precision: Lightning's name for it.
        """
        settings = {**self.settings, "trainer": {**self.settings["trainer"], "precision": precision}}
        return replace(self, trainer=replace(self.trainer, precision=precision), settings=settings)

    def _check_batch(self) -> None:
        n_ranks = self.trainer.world_size
        accumulation, rest = divmod(self.global_batch, self.micro_batch * n_ranks)
        if not rest and accumulation:
            return
        ranks = f" on each of {n_ranks} ranks" if n_ranks > 1 else ""
        of_rank, uneven = divmod(self.global_batch, n_ranks)
        divides = not uneven and of_rank
        mend = (
            f"micro_batch={math.gcd(of_rank, self.micro_batch)}"
            if divides
            else f"global_batch={self.micro_batch * n_ranks}"
        )
        raise ValueError(
            f"global_batch={self.global_batch} sequences cannot be divided into micro-batches of "
            f"micro_batch={self.micro_batch}{ranks}: set {mend}, for example."
        )
