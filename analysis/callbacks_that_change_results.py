"""Which callbacks change the result of a run instead of only observing the run, judged by the callbacks' dotted names."""

from collections.abc import Mapping
from typing import Any

_AVERAGES = ("WeightAveraging", "EMAWeightAveraging")
_WATCH = ("DeviceStatsMonitor", "LearningRateMonitor", "EarlyStopping")  # Lightning's callbacks that only observe


def averages_weights(target: str) -> bool:
    """Whether a callback of this dotted name, ours or one of Lightning's, averages weights.

    Args:
        target: dotted name of the class.
    """
    package, _, name = target.rpartition(".")
    return name in _AVERAGES and package.startswith(("callbacks", "lightning.pytorch.callbacks"))


def may_change_weights(target: str) -> bool:
    """Whether a callback of this dotted name may change weights: true if it averages weights or is not a known callback.

    Args:
        target: dotted name of the class.
    """
    package, _, name = target.rpartition(".")
    is_known = package.split(".")[0] == "callbacks" or (package.startswith("lightning.pytorch.") and name in _WATCH)
    return averages_weights(target) or not is_known


def callback_setting_prefixes(callbacks: Mapping[str, Any], *, all_that_may: bool) -> tuple[str, ...]:
    """Prefixes of the settings of callbacks that average weights.

    Args:
        callbacks: settings by dotted name; settings of other sections are ignored.
        all_that_may: also include unknown callbacks, because they may change weights.
    """
    decides = may_change_weights if all_that_may else averages_weights
    end = "._target_"
    return tuple(
        f"{key.removesuffix(end)}."
        for key, target in callbacks.items()
        if key.startswith("callbacks.") and key.endswith(end) and decides(str(target))
    )
