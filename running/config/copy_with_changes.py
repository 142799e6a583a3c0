"""Change some of a run's settings."""

from collections.abc import Mapping
from typing import Any

from running.config.run_config import RunConfig


def copy_with_changes(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """The same run with other values of some settings, parsed and checked again.

    Args:
        config: config of the run.
        changes: dotted key -> value. The key may be new, but its group exists.

    Raises:
        ValueError: as for `RunConfig.of`.
    """
    settings = dict(config.settings)
    for key, value in changes.items():
        *groups, name = key.split(".")
        node = settings
        for group in groups:
            node[group] = dict(node[group])
            node = node[group]
        node[name] = value
    return RunConfig.of(settings)
