"""Names for `_target_` in this version and in earlier versions. Configs and run directories with old names keep
working.
"""

from collections.abc import Mapping
from typing import Any

RENAMED_TARGETS = {
    "callbacks.DietLog": "callbacks.SampleOrderLog",
    "callbacks.MetricsTable": "callbacks.CsvMetrics",
    "callbacks.SuddenEnd": "callbacks.KillAtStep",
    "callbacks.ZeroShot": "callbacks.ZeroShotEvaluation",
}
"""Old dotted name -> new dotted name."""


def target_of(node: Any) -> str:
    """Present dotted name of the class or function in `_target_`; empty if the node has no `_target_`.

    Args:
        node: `_target_` and keyword arguments.
    """
    target = str(node.get("_target_", "")) if isinstance(node, Mapping) else ""
    return RENAMED_TARGETS.get(target, target)
