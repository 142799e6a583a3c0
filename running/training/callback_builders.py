"""Build a run's callbacks from its config. This module needs Lightning, which the other builders do not."""

from collections.abc import Iterable, Mapping
from typing import Any

import lightning as L

from callbacks import Checkpoints, ValidationPerplexity, WeightAveraging
from running.config import allowed_targets
from running.config.callback_configs import NO_VALIDATION
from running.training.resume import ResumePoint


def build_callbacks(nodes: Mapping[str, Any]) -> list[L.Callback]:
    """Build the callbacks of a config.

    Args:
        nodes: name -> `_target_` and arguments.

    Returns:
        The callbacks, in the order of the config.

    Raises:
        ValueError: a callback cannot be built, two callbacks share one state in a checkpoint, or
            `callbacks.checkpoints` is missing.
    """
    watchers = [allowed_targets.build_callback(node) for node in nodes.values()]
    kept: dict[str, str] = {}  # key of a state in a checkpoint -> name of its callback
    for name, watcher in zip(nodes, watchers, strict=True):
        if (
            type(watcher).state_dict is not L.Callback.state_dict
            and (other := kept.setdefault(watcher.state_key, name)) != name
        ):
            raise ValueError(
                f"callbacks.{other} and callbacks.{name} are of the same class, and a checkpoint can store the state "
                "of only one: leave one out."
            )
    if sum(isinstance(watcher, Checkpoints) for watcher in watchers) != 1:
        raise ValueError("callbacks.checkpoints is missing: a run without checkpoints could not be resumed.")
    checks = nodes["checkpoints"]
    if checks.get("best") and not any(isinstance(watcher, ValidationPerplexity) for watcher in watchers):
        raise ValueError(NO_VALIDATION)
    return watchers


def check_average_kept(watchers: Iterable[L.Callback], beginning: ResumePoint) -> None:
    """Check that a callback continues the average of a checkpoint, which stores the average in place of the weights.

    Args:
        watchers: the run's callbacks.
        beginning: where this start of the run begins.

    Raises:
        ValueError: there is no such callback.
    """
    if beginning.averaged and not any(isinstance(watcher, WeightAveraging) for watcher in watchers):
        raise ValueError(
            f"{beginning.checkpoint} contains an average of the weights, but no callback of this run continues it: "
            "keep the callback (callbacks.<its name>._target_=callbacks.WeightAveraging or EMAWeightAveraging)."
        )
