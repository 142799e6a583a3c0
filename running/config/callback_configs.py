"""Typed settings of the callbacks that ship. A wrong setting is found before Lightning is imported."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from running.config.refused_lightning_callbacks import replaced_callback
from running.config.renamed_targets import target_of
from running.config.settings_parser import Count, CountOrZero, NumberOrZero, Share, parse

NO_VALIDATION = (
    "callbacks.checkpoints.best is true, but callbacks.validation, which finds the best one, is missing: add it."
)


@dataclass(frozen=True, kw_only=True)
class NoSettings:
    """For callbacks without settings."""


@dataclass(frozen=True, kw_only=True)
class EveryConfig:
    """For callbacks that act at intervals."""

    every: Count
    """Steps between two actions."""


@dataclass(frozen=True, kw_only=True)
class SamplesConfig:
    """Settings of `callbacks.Samples`."""

    every: Count
    """Steps between two sets of samples."""
    prompts: list[str]
    """Texts to continue."""
    chat_prompts: list[str]
    """Messages of a user, which the model answers."""
    max_new_tokens: Count
    """Maximum number of tokens per sample."""
    temperature: NumberOrZero
    """Divides the logits; 0: always take the most likely token."""
    top_k: Count | None
    """Sample from this many of the most likely tokens; null: from all."""

    def __post_init__(self) -> None:
        for name in ("prompts", "chat_prompts"):
            texts = getattr(self, name)
            if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
                raise ValueError(f"callbacks.samples.{name} is {texts!r}: it must be a list of non-empty strings.")


@dataclass(frozen=True, kw_only=True)
class CheckpointsConfig:
    """Settings of `callbacks.Checkpoints`."""

    every: Count
    """Steps between two checkpoints."""
    keep: Count
    """Number of newest checkpoints to keep."""
    best: bool = False
    """Whether to keep the checkpoint with the lowest mean validation loss too."""
    permanent_every: Count | None = None
    """Steps between two checkpoints that are never deleted; null: no such checkpoints."""


@dataclass(frozen=True, kw_only=True)
class ZeroShotEvaluationConfig:
    """Settings of `callbacks.ZeroShotEvaluation`."""

    every: Count
    """Steps between two evaluations."""
    name: str
    """Name of the task in the metrics."""
    questions: Count
    """Number of questions, spread evenly over the task."""
    task: dict[str, Any]
    """Content of conf/task/<name>.yaml."""
    path: str | None = None
    """File with the records of the task; null: read them from the hub."""


@dataclass(frozen=True, kw_only=True)
class EarlyStoppingConfig:
    """Settings of `callbacks.EarlyStopping`."""

    monitor: str = "val/loss/mean"
    """Metric of the validation, as in metrics.jsonl."""
    patience: Count = 3
    """Validations without an improvement after which the run ends."""
    min_delta: float = 0.0
    """Smallest change that counts as an improvement."""
    mode: Literal["min", "max"] = "min"
    """Whether the metric should fall or rise."""
    stopping_threshold: float | None = None
    """End the run when the metric is better than this; null: no limit."""
    divergence_threshold: float | None = None
    """End the run when the metric is worse than this; null: no limit."""
    check_finite: bool = True
    """End the run when the metric is not finite."""
    strict: bool = True
    """Whether a missing metric is an error."""
    verbose: bool = False
    """Whether to log each improvement."""
    log_rank_zero_only: bool = False
    """Whether only rank 0 logs."""


@dataclass(frozen=True, kw_only=True)
class MedianPruningConfig:
    """Settings of `callbacks.MedianPruning`."""

    startup: Count
    """Minimum number of runs to compare with."""
    against: list[str]
    """Names of the completed runs to compare with. A sweep fills in these names."""

    def __post_init__(self) -> None:
        names: Any = self.against
        if not isinstance(names, list) or not all(isinstance(name, str) and "/" not in name for name in names):
            raise ValueError(
                f"callbacks: against is {names!r} for MedianPruning: it must be a list of names of run directories."
            )


@dataclass(frozen=True, kw_only=True)
class WeightAveragingConfig:
    """Settings of `callbacks.WeightAveraging`."""

    device: Any = None
    """Where the average is stored; null: on the model's device."""
    use_buffers: bool = True
    """Whether buffers are averaged too."""


@dataclass(frozen=True, kw_only=True)
class EMAWeightAveragingConfig(WeightAveragingConfig):
    """Settings of `callbacks.EMAWeightAveraging`."""

    decay: Share = 0.999
    """Factor of the old average in each update."""
    update_every_n_steps: Count = 1
    """Steps between two updates."""
    update_starting_at_step: CountOrZero | None = None
    """Step (0 is the first) after which the average starts; null: the first."""


@dataclass(frozen=True, kw_only=True)
class KillAtStepConfig:
    """Settings of `callbacks.KillAtStep`."""

    at: CountOrZero
    """Step (0 is the first) in which the process is killed."""


CALLBACK_CONFIGS: dict[str, type] = {
    "callbacks.Throughput": EveryConfig,
    "callbacks.ValidationPerplexity": NoSettings,
    "callbacks.MixLedger": EveryConfig,
    "callbacks.Samples": SamplesConfig,
    "callbacks.Checkpoints": CheckpointsConfig,
    "callbacks.ZeroShotEvaluation": ZeroShotEvaluationConfig,
    "callbacks.EarlyStopping": EarlyStoppingConfig,
    "callbacks.MedianPruning": MedianPruningConfig,
    "callbacks.WeightAveraging": WeightAveragingConfig,
    "callbacks.EMAWeightAveraging": EMAWeightAveragingConfig,
    "callbacks.CsvMetrics": NoSettings,
    "callbacks.SampleOrderLog": NoSettings,
    "callbacks.KillAtStep": KillAtStepConfig,
}
"""Class -> settings of the class. Other callbacks, such as a user's own, can be checked only by building them."""


def callbacks_in(config: Mapping[str, Any]) -> dict[str, Any]:
    """The callbacks of a config: name -> `_target_` and arguments.

    Args:
        config: nested settings of a run.
    """
    return dict(config.get("callbacks") or {})


def check_known_callbacks(nodes: Mapping[str, Any]) -> None:
    """Check the settings of the callbacks whose types are known here.

    Args:
        nodes: name -> `_target_` and arguments; `checkpoints` is among the names.

    Raises:
        ValueError: a setting is unknown, missing or invalid; or the best checkpoint is kept without a validation.
    """
    for name, node in nodes.items():
        if not isinstance(node, Mapping) or "_target_" not in node:
            raise ValueError(
                f"callbacks.{name} has no _target_: it must name a callback with _target_ (to remove it, type ~callbacks.{name})."
            )
    targets = {name: _class_name(node) for name, node in nodes.items()}
    for name, target in targets.items():
        if target in CALLBACK_CONFIGS:
            arguments = {key: value for key, value in nodes[name].items() if key != "_target_"}
            parse(CALLBACK_CONFIGS[target], arguments, name=f"callbacks.{name}")
    all_known = set(targets.values()) <= set(CALLBACK_CONFIGS)
    if all_known and "callbacks.ValidationPerplexity" not in targets.values() and nodes["checkpoints"].get("best"):
        raise ValueError(NO_VALIDATION)


def are_fully_checked(nodes: Mapping[str, Any]) -> bool:
    """Whether `check_known_callbacks` has found everything that building the callbacks could refuse.

    Otherwise, a callback's type is not known here, or two callbacks may not fit together.

    Args:
        nodes: name -> `_target_` and arguments.
    """
    targets = [_class_name(node) for node in nodes.values()]
    return {"callbacks.Checkpoints"} <= set(targets) <= set(CALLBACK_CONFIGS) and len(set(targets)) == len(targets)


def checkpoints_config(nodes: Mapping[str, Any]) -> CheckpointsConfig:
    """The settings of `callbacks.checkpoints`. A subclass of `callbacks.Checkpoints` may have further ones.

    Args:
        nodes: name -> `_target_` and arguments.

    Raises:
        ValueError: a setting is missing or invalid.
    """
    known = {field.name for field in fields(CheckpointsConfig)}
    arguments = {key: value for key, value in nodes["checkpoints"].items() if key in known}
    return parse(CheckpointsConfig, arguments, name="callbacks.checkpoints")


def _class_name(node: Mapping[str, Any]) -> str:
    """The dotted name of the class that a node names, as this version has it."""
    return replaced_callback(target_of(node))
