"""Which callbacks of a run decide its result, and do not only watch it: by what its settings call them."""

from collections.abc import Mapping
from typing import Any

_AVERAGES = ("WeightAveraging", "EMAWeightAveraging")
_WATCH = ("DeviceStatsMonitor", "LearningRateMonitor", "EarlyStopping")  # of Lightning's


def averages_weights(target: str) -> bool:
    """Whether a callback of this dotted name, ours or Lightning's, averages weights."""
    package, _, name = target.rpartition(".")
    return name in _AVERAGES and package.startswith(("callbacks", "lightning.pytorch.callbacks"))


def may_change_weights(target: str) -> bool:
    """Whether a callback of this dotted name may change weights: one that averages them, or that somebody else wrote."""
    package, _, name = target.rpartition(".")
    is_known = package.split(".")[0] == "callbacks" or (package.startswith("lightning.pytorch.") and name in _WATCH)
    return averages_weights(target) or not is_known


def callback_setting_prefixes(callbacks: Mapping[str, Any], *, all_that_may: bool) -> tuple[str, ...]:
    """Beginnings of the settings of those callbacks that average weights, or of all that may change them.

    Args:
        callbacks: settings by dotted name; others are passed over.
    """
    decides = may_change_weights if all_that_may else averages_weights
    end = "._target_"
    return tuple(
        f"{key.removesuffix(end)}."
        for key, target in callbacks.items()
        if key.startswith("callbacks.") and key.endswith(end) and decides(str(target))
    )
