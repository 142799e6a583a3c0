"""Typed settings of a training run: conf/train.yaml and the command line, parsed once and checked.

All settings are checked before torch and Lightning are imported. What depends on the device, on the data or on
checkpoints is checked later, by `running.training.resolve`.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

from analysis.hours_and_loss_from_sizes import DEVICES, Device, find_device
from data_modules.order.curriculum import Curriculum
from gpt_lightning.accelerator_and_precision_names import Accelerator, Precision
from gpt_lightning.learning_rate_schedules import learning_rate_schedule
from gpt_lightning.model import GPTConfig
from gpt_lightning.model.part_registry import check_loss_kernel
from running.config import compose
from running.config.callback_configs import check_known_callbacks
from running.config.logger_configs import check_logger
from running.config.optimization_configs import OptimizerConfig, ScheduleConfig
from running.config.own_imports import check_imports
from running.config.path_and_name_settings import check_names
from running.config.settings_parser import (
    Count,
    CountOrZero,
    Fraction,
    NumberOrZero,
    PositiveNumber,
    build_section,
    parse,
)
from running.config.tokenizer_config import TokenizerConfig

_OF_PLAN_AND_VERIFY = ("plan", "mix_design", "verify")


@dataclass(frozen=True, kw_only=True)
class BranchConfig:
    """The run and the step where a run branches off; both are set or neither is."""

    run: Path | None = None
    """Folder of the other run; null: this run does not branch off."""
    step: CountOrZero | None = None
    """Step of a checkpoint of the trunk, from which weights, optimizer state and the position in every source come."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How data is prepared and loaded."""

    prepare: Literal["never", "missing"] = "never"
    """Whether to prepare missing sources before training."""
    verify: bool = True
    """Compare every byte of the shards with source.json before training."""
    limit_tokens: dict[str, Any] = field(default_factory=dict)
    """Tokens to prepare, by source; other sources use the limit in conf/source."""
    workers: CountOrZero = 0
    """Number of processes that load data. The batches do not depend on this number."""
    val_sequences: Count | None = None
    """Maximum number of validation sequences per source; null: all."""

    def __post_init__(self) -> None:
        limits: Any = self.limit_tokens
        if not isinstance(limits, Mapping):
            raise ValueError(f"data.limit_tokens is {limits!r}: it must map sources to numbers of tokens.")
        for source, limit in limits.items():
            if isinstance(limit, bool) or not isinstance(limit, int | float) or not 1 <= limit < math.inf:
                raise ValueError(f"data.limit_tokens.{source} is {limit!r}: it must be a number of tokens, 1 or more.")


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """Devices, precision and kernels. See conf/trainer."""

    accelerator: Accelerator
    """Where to train; auto: on a GPU if there is one."""
    devices: Count
    """Processes per machine: one per GPU; on a CPU any number."""
    num_nodes: Count
    """Number of machines."""
    strategy: Literal["auto", "ddp", "fsdp"]
    """How processes share the work; auto: ddp if there are several."""
    precision: Precision
    """Number format of weights and of matrix products; auto: the best for the device."""
    compile: bool
    """Whether to compile the model with torch.compile."""
    loss_kernel: str
    """How losses and their gradient are computed: torch, triton or auto (triton on a GPU that supports it)."""
    recompute: Literal["none", "blocks"]
    """What to recompute in the backward pass; blocks: less memory, a third more computation."""
    deterministic: bool
    """Whether to use only deterministic CUDA kernels, which are slower."""

    def __post_init__(self) -> None:
        check_loss_kernel(self.loss_kernel)

    @property
    def world_size(self) -> int:
        """Total number of processes."""
        return self.devices * self.num_nodes


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """What plan.py assumes about the devices. See conf/plan.yaml."""

    device: str
    """Type of GPU for hours and memory, or cpu. trainer.devices and trainer.num_nodes give the number of devices."""
    mfu: Fraction
    """Model FLOPs utilization (MFU): the fraction of the GPU's peak FLOP/s that the run reaches."""
    price_per_hour: NumberOrZero | None
    """Price of one device per hour, in any currency; null: unknown."""

    def __post_init__(self) -> None:
        if self.gpu is None and self.device != "cpu":
            known = ", ".join(DEVICES)
            raise ValueError(f"plan.device={self.device} is not known: it must be one of cpu, {known}.")

    @property
    def gpu(self) -> Device | None:
        """The device's data sheet; None: the device is the CPU."""
        return find_device(self.device)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All settings of a training run, parsed by `RunConfig.of`."""

    name: str
    """Name of the run and of the run directory."""
    runs_dir: Path
    """Folder of all runs."""
    run_dir: Path
    """Directory to which the run writes everything."""
    sweep_dir: Path
    """Folder of a sweep (-m), with one subfolder per job."""
    jobs_at_once: Count
    """Jobs of a sweep that run at the same time on this machine; these jobs share the machine's GPUs or CPU threads."""
    data_dir: Path
    """Folder of the prepared sources, as for prepare.py."""
    seed: CountOrZero
    """Seed of initial weights, order of the data, dropout and samples."""
    max_steps: Count
    """Number of optimizer steps."""
    global_batch: Count
    """Sequences per optimizer step, over all ranks and accumulation steps."""
    micro_batch: Count
    """Sequences per forward pass on one rank."""
    max_hours: PositiveNumber | None
    """Wall-clock limit in hours: stop in time with a checkpoint; the same command resumes the run; null: no limit."""
    gradient_clip: PositiveNumber | None
    """Maximum norm of the gradient; null: no clipping."""
    on_spike: Literal["train", "skip"]
    """What to do with a step whose loss or gradient norm is more than 6 standard deviations above the mean of the last 128
    steps; skip: leave the weights as they are."""
    base_width: Count | None
    """The model.d_model for which optimizer.lr was tuned; at another width the learning rates of the block matrices are
    scaled; null: model.d_model."""
    init_from: Path | None
    """Initial weights: a run, a checkpoint, or a format that convert.py reads. The architecture comes from there; null:
    random weights."""
    resume: Any
    """Where to start: auto (the newest checkpoint, if any), never (step 0), or the path of a checkpoint."""
    branch: BranchConfig
    data: DataConfig
    log_every: Count
    """Steps between two rows of metrics."""
    val_every: Count
    """Steps between two validations."""
    callbacks: dict[str, Any]
    """Name -> `_target_` and arguments; see `callback_configs`."""
    tokenizer: TokenizerConfig
    model: GPTConfig
    """Sizes and choices of the model. `eot_id` is not known yet."""
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    curriculum: Curriculum
    trainer: TrainerConfig
    logger: Any = None
    """`_target_` and arguments of a logger in addition to metrics.jsonl and TensorBoard; empty: no further logger."""
    imports: list[str] = field(default_factory=list)
    """The user's own modules, which register parts, as `+imports=[my_package]`. A config file may not set `imports`."""
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
        sections = {
            "model": build_section(GPTConfig, "model", settings["model"], eot_id=0),
            "optimizer": OptimizerConfig.of(settings["optimizer"]),
            "curriculum": build_section(Curriculum, "curriculum", settings["curriculum"]),
        }
        return parse(cls, {**settings, **sections, "settings": settings})

    def __post_init__(self) -> None:
        for mix in self.curriculum.mixes:
            if mix in compose.group_choices("source"):
                raise ValueError(
                    f"curriculum.mixes.{mix}: {mix} is the name of a source; choose another name for the mix."
                )
        if not isinstance(self.resume, str):
            raise ValueError(f"resume is {self.resume!r}: it must be auto, never, or the path of a checkpoint.")
        if self.resume not in ("auto", "never") and Path(self.resume).suffix != ".pt":
            raise not_a_checkpoint(self.resume, self.run_dir)
        if self.branch.run is None and self.branch.step is not None:
            raise ValueError(f"branch.step is {self.branch.step}, but branch.run is not set: set both or neither.")
        if "checkpoints" not in self.callbacks:
            raise ValueError("callbacks.checkpoints is missing: a run without checkpoints could not be resumed.")
        check_known_callbacks(self.callbacks)
        check_logger(self.logger)
        learning_rate_schedule(**asdict(self.schedule), steps=self.max_steps)
        self._check_batch()
        self._check_workers()

    @property
    def chosen_gpu(self) -> str | None:
        """The GPU of `hardware=…`; None: no hardware was chosen."""
        hardware = self.settings.get("hardware")
        return str(hardware["device"]) if hardware else None

    @property
    def accumulation_steps(self) -> int:
        """Micro-batches per optimizer step on each rank."""
        return self.global_batch // (self.micro_batch * self.trainer.world_size)

    @property
    def tokens_per_step(self) -> int:
        """Tokens per optimizer step, over all ranks."""
        return self.global_batch * self.model.max_seq_len

    def with_precision(self, precision: str) -> "RunConfig":
        """The same run with `auto` replaced by the precision that was chosen, as config.yaml records it.

        Args:
            precision: Lightning's name for the precision.
        """
        settings = {**self.settings, "trainer": {**self.settings["trainer"], "precision": precision}}
        trainer = replace(self.trainer, precision=cast(Precision, precision))
        return replace(self, trainer=trainer, settings=settings)

    def _check_batch(self) -> None:
        n_ranks = self.trainer.world_size
        accumulation, rest = divmod(self.global_batch, self.micro_batch * n_ranks)
        if not rest and accumulation:
            return
        ranks = f" on each of {n_ranks} ranks" if n_ranks > 1 else ""
        of_rank, uneven = divmod(self.global_batch, n_ranks)
        divides = not uneven and of_rank
        mend = (
            f"micro_batch={max(n for n in range(1, min(of_rank, self.micro_batch) + 1) if of_rank % n == 0)}"
            if divides
            else f"global_batch={self.micro_batch * n_ranks}"
        )
        raise ValueError(
            f"global_batch={self.global_batch} sequences cannot be divided into micro-batches of "
            f"micro_batch={self.micro_batch}{ranks}: set {mend}, for example."
        )

    def _check_workers(self) -> None:
        """Check that no worker prefetches batches whose mix weights are not known yet."""
        ado, workers = self.curriculum.ado, self.data.workers
        if ado and not ado.record and workers:
            raise ValueError(
                f"data.workers is {workers}, but with curriculum.ado the next batch depends on the losses of the current batch: "
                "set data.workers=0, or set curriculum.ado.record to the mix_weights.jsonl of another run to repeat its "
                "updates."
            )


def not_a_checkpoint(path: str | Path, run: Path) -> ValueError:
    """The error for a value of `resume` that is not the path of a checkpoint.

    Args:
        path: the value.
        run: the run's folder.
    """
    folder = run / "checkpoints"
    there = ", ".join(sorted((file.name for file in folder.glob("step_*.pt")), reverse=True)) or "none"
    return ValueError(
        f"resume={path} is not a checkpoint{'' if Path(path).exists() else ', and the file does not exist'}: it must be "
        f"auto, never, or the path of a file step_….pt; {folder} has {there}."
    )
