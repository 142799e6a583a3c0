"""Whether a callback ended a run before its last step. Does not need torch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis.callbacks_that_change_results import may_change_weights
from gpt_lightning.early_end_file_names import ENDED_EARLY
from running.config.renamed_targets import target_of


def why_ended_early(run: Path, callbacks: Mapping[str, Any], step: int) -> str | None:
    """Why a callback ended the run after the checkpoint of `step`; None: no callback did, or the callbacks have
    changed.

    Args:
        run: the run's directory.
        callbacks: name -> `_target_` and arguments of this start.
        step: step of the run's checkpoint.
    """
    try:
        ended = json.loads((run / ENDED_EARLY).read_bytes())
        return str(ended["why"]) if (ended["step"], ended["callbacks"]) == (step, may_end_early(callbacks)) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def may_end_early(callbacks: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the callbacks that may end a run before its last step, or that influence when this happens.

    Args:
        callbacks: name -> `_target_` and arguments.
    """
    return {
        name: node
        for name, node in callbacks.items()
        if target_of(node).endswith(".EarlyStopping") or may_change_weights(target_of(node))
    }
