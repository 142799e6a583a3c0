"""Typed settings of the callbacks in conf/train.yaml. A wrong setting is found before Lightning is imported."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from running.config.renamed_targets import target_of
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
}


def callbacks_in(config: Mapping[str, Any]) -> dict[str, Any]:
    """The callbacks of a config: name -> `_target_` and arguments.

    Args:
        config: nested settings of a run.
    """
    return dict(config.get("callbacks") or {})


def checkpoint_settings(nodes: Mapping[str, Any]) -> CheckpointsConfig:
    """The settings of `callbacks.checkpoints`, which every run has.

    Args:
        nodes: name -> `_target_` and arguments.

    Raises:
        ValueError: a setting is missing or invalid.
    """
    return parse(CheckpointsConfig, nodes["checkpoints"])


def check_known_callbacks(nodes: Mapping[str, Any]) -> bool:
    """Check the settings of the callbacks whose types are known here.

    Args:
        nodes: name -> `_target_` and arguments.

    Returns:
        Whether all callbacks are known. Others can be checked only by building them.

    Raises:
        ValueError: a setting is unknown, missing or invalid.
    """
    all_known = True
    for name, node in nodes.items():
        kind = _TYPED.get(target_of(node))
        if kind is None:
            all_known = False
        else:
            arguments = {key: value for key, value in node.items() if key != "_target_"}
            parse(kind, arguments, name=f"callbacks.{name}")
    return all_known
