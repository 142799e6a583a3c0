"""Build a run's callbacks from its config. Apart from the other builders, as it needs Lightning."""

from collections.abc import Iterable, Mapping
from typing import Any

import lightning as L

from callbacks import Checkpoints, ValidationPerplexity, WeightAveraging
from running.config import allowed_targets
from running.training.resume import ResumePoint


def build_callbacks(nodes: Mapping[str, Any]) -> list[L.Callback]:
    """The callbacks of a config.

    Args:
        nodes: name -> `_target_` and arguments.

    Raises:
        ValueError: one cannot be built, or there is none that saves.
    """
    watchers = [allowed_targets.build_callback(node) for node in nodes.values()]
    kept: dict[str, str] = {}  # names of those that a checkpoint keeps a state of, by the key that it has there
    for name, watcher in zip(nodes, watchers, strict=True):
        if (
            type(watcher).state_dict is not L.Callback.state_dict
            and (other := kept.setdefault(watcher.state_key, name)) != name
        ):
            raise ValueError(
                f"callbacks.{other} and callbacks.{name} are of one kind, and a checkpoint keeps one such state: leave one out."
            )
    if sum(isinstance(watcher, Checkpoints) for watcher in watchers) != 1:
        raise ValueError("callbacks.checkpoints is missing: a run without checkpoints could not be continued.")
    checks = nodes["checkpoints"]
    if checks.get("best") and not any(isinstance(watcher, ValidationPerplexity) for watcher in watchers):
        raise ValueError(
            "callbacks.checkpoints.best is true, and callbacks.validation, which would say so, is missing."
        )
    return watchers


def check_average_kept(watchers: Iterable[L.Callback], beginning: ResumePoint) -> None:
    """A checkpoint with an average has that in the place of the weights: only the callback that made it tells them apart.

    Raises:
        ValueError: it is missing.
    """
    if beginning.averaged and not any(isinstance(watcher, WeightAveraging) for watcher in watchers):
        raise ValueError(
            f"{beginning.checkpoint} holds an average of the weights, and no callback here goes on with it: leave the "
            "callback in (callbacks.<its name>._target_=callbacks.WeightAveraging or EMAWeightAveraging)."
        )
