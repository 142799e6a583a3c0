"""Whether a callback ended a run before its last step. Does not need torch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis.callbacks_that_change_results import may_change_weights
from gpt_lightning.early_end_files import ENDED_EARLY


def why_ended_early(run: Path, config: Mapping[str, Any], step: int) -> str | None:
    """Why a callback ended the run after its checkpoint of `step`; None: none did, or the callbacks have changed.

    Args:
        run: its directory.
        config: settings of the job, nested.
        step: step of the run's checkpoint.
    """
    try:
        ended = json.loads((run / ENDED_EARLY).read_bytes())
        return str(ended["why"]) if (ended["step"], ended["callbacks"]) == (step, may_end_early(config)) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def may_end_early(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the callbacks that may end a run before its last step, or that influence when this happens.

    Args:
        config: nested settings.
    """
    nodes = {name: (node, str(node.get("_target_"))) for name, node in config["callbacks"].items()}
    return {
        name: node
        for name, (node, target) in nodes.items()
        if target.endswith(".EarlyStopping") or may_change_weights(target)
    }
