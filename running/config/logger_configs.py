"""Typed settings of the loggers in conf/logger. A wrong setting is found before Lightning is imported."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from running.config.settings_parser import parse


@dataclass(frozen=True, kw_only=True)
class WandbConfig:
    """Settings of Weights & Biases. Others are passed to Lightning's `WandbLogger`."""

    project: str | None = None
    """Project that lists the runs."""
    offline: bool = False
    """Whether to store the log on this machine instead of sending it."""


@dataclass(frozen=True, kw_only=True)
class MLFlowConfig:
    """Settings of MLflow. Others are passed to Lightning's `MLFlowLogger`."""

    tracking_uri: str | None = None
    """Database or server that stores the runs."""
    experiment_name: str = "lightning_logs"
    """Experiment that lists the runs."""


LOGGER_CONFIGS: dict[str, type] = {"WandbLogger": WandbConfig, "MLFlowLogger": MLFlowConfig}
"""Name of the class -> settings of the class."""


def check_logger(node: Any) -> None:
    """Check the section `logger`.

    Args:
        node: `_target_` and arguments of a logger; empty: no logger.

    Raises:
        ValueError: the section is not a mapping, or a setting of a logger that is known here is wrong.
    """
    if not node:
        return
    if not isinstance(node, Mapping):
        raise ValueError(f"logger is {node!r}: it must be a group of settings, as conf/logger has them, or null.")
    kind = LOGGER_CONFIGS.get(str(node.get("_target_")).rpartition(".")[2])
    if kind is not None:
        known = {field.name for field in fields(kind)}
        parse(kind, {key: value for key, value in node.items() if key in known}, name="logger")
