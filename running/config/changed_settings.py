"""Settings that differ between two starts of a run. An earlier version may have made the first start."""

from collections.abc import Mapping
from typing import Any

from analysis.callbacks_that_change_results import callback_setting_prefixes
from running.config.compose import flatten
from running.config.renamed_targets import RENAMED_TARGETS

BEFORE: dict[str, Any] = {
    "data.prepare": "never",
    "data.verify": True,
    "model.attend_across_documents": True,
    "model.qk_norm": False,
    "model.residual_init": "scaled",
    "model.z_loss": 0.0,
    "on_spike": "train",
    "resume": "auto",
    "schedule.shape": "cosine",
    "trainer.compile": False,
    "trainer.deterministic": False,
    "trainer.loss_kernel": "auto",
    "trainer.recompute": "none",
    "callbacks.checkpoints.best": False,
}
"""Settings that the first version did not have -> the value that gives the behaviour of the first version. For settings
that are not listed, this value is null."""


def changed_settings(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """(then, now) of every setting that differs. A missing setting has its value in `BEFORE`.

    Args:
        then: the earlier config, nested.
        now: the later config, nested.
    """
    old, new = ({key: _present_name(value) for key, value in flatten(config)} for config in (then, now))
    pairs = {key: (old.get(key, BEFORE.get(key)), new.get(key, BEFORE.get(key))) for key in old | new}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _present_name(value: Any) -> Any:
    return RENAMED_TARGETS.get(value, value) if isinstance(value, str) else value


def averaging_in(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Prefixes of the settings of callbacks that average weights. These settings define a run.

    Args:
        config: nested settings of a run.
    """
    return callback_setting_prefixes(dict(flatten(config)), all_that_may=False)
