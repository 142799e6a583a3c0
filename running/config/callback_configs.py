"""Typed settings of the callbacks in conf/train.yaml. A wrong setting is found before Lightning is imported."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from running.config.renamed_targets import RENAMED_TARGETS
from running.config.settings_parser import Count, parse


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
    chat_prompts: list[str]
    max_new_tokens: Count
    temperature: float
    top_k: Count | None

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
    permanent_every: Count | None = None
    """Steps between two checkpoints that are never deleted; None: no such checkpoints."""


_TYPED: dict[str, type] = {
    "callbacks.Throughput": EveryConfig,
    "callbacks.ValidationPerplexity": NoSettings,
    "callbacks.MixLedger": EveryConfig,
    "callbacks.Samples": SamplesConfig,
    "callbacks.Checkpoints": CheckpointsConfig,
    "callbacks.SampleOrderLog": NoSettings,
}


def check_known_callbacks(nodes: Mapping[str, Any]) -> None:
    """Check the settings of the callbacks whose types are known here.

    Args:
        nodes: name -> `_target_` and arguments.

    Raises:
        ValueError: a setting is unknown, missing or invalid.
    """
    for name, node in nodes.items():
        if kind := _TYPED.get(_target(node)):
            arguments = {key: value for key, value in node.items() if key != "_target_"}
            parse(kind, arguments, name=f"callbacks.{name}")


def are_fully_checked(nodes: Mapping[str, Any]) -> bool:
    """Whether `check_known_callbacks` has found everything that building the callbacks could refuse.

    Otherwise, a callback's type is not known here, or the callbacks may not fit together.

    Args:
        nodes: name -> `_target_` and arguments.
    """
    targets = [_target(node) for node in nodes.values()]
    required = {"callbacks.Checkpoints"}
    if any(isinstance(node, Mapping) and node.get("best") for node in nodes.values()):
        required.add("callbacks.ValidationPerplexity")
    return required <= set(targets) <= set(_TYPED) and len(set(targets)) == len(targets)


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


def _target(node: Any) -> str:
    target = str(node.get("_target_")) if isinstance(node, Mapping) else ""
    return RENAMED_TARGETS.get(target, target)
