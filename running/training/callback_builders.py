"""Build a run's callbacks from the config. Only this module imports Lightning, which takes seconds."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from gpt_lightning.evaluation import QuestionsConfig
from running.config import allowed_targets
from running.config.callback_configs import NO_VALIDATION, checkpoints_config
from running.config.renamed_targets import target_of
from running.config.settings_parser import parse
from running.training.resume import ResumePoint

if TYPE_CHECKING:
    import lightning as L


def build_callbacks(nodes: Mapping[str, Any]) -> "list[L.Callback]":
    """Build the callbacks of a config.

    Args:
        nodes: name -> `_target_` and arguments.

    Returns:
        The callbacks, in the order of the config.

    Raises:
        ValueError: a callback cannot be built, two callbacks share one state in a checkpoint, or
            `callbacks.checkpoints` is missing.
    """
    from lightning import Callback

    from callbacks import Checkpoints, ValidationPerplexity

    built = [allowed_targets.build_callback(_with_typed_task(name, node)) for name, node in nodes.items()]
    kept: dict[str, str] = {}  # key of a state in a checkpoint -> name of its callback
    for name, callback in zip(nodes, built, strict=True):
        if (
            type(callback).state_dict is not Callback.state_dict
            and (other := kept.setdefault(callback.state_key, name)) != name
        ):
            raise ValueError(
                f"callbacks.{other} and callbacks.{name} are of the same class, and a checkpoint can store the state "
                "of only one: leave one out."
            )
    if sum(isinstance(callback, Checkpoints) for callback in built) != 1:
        raise ValueError("callbacks.checkpoints is missing: a run without checkpoints could not be resumed.")
    if checkpoints_config(nodes).best and not any(isinstance(callback, ValidationPerplexity) for callback in built):
        raise ValueError(NO_VALIDATION)
    return built


def _with_typed_task(name: str, node: Any) -> Any:
    """The node of a callback, with the task of a ZeroShotEvaluation as a dataclass."""
    if target_of(node) != "callbacks.ZeroShotEvaluation":
        return node
    return {
        key: parse(QuestionsConfig, value, name=f"callbacks.{name}.task") if key == "task" else value
        for key, value in node.items()
    }


def check_average_kept(callbacks: "Iterable[L.Callback]", beginning: ResumePoint) -> None:
    """Check that a callback continues the average of a checkpoint, which stores the average in place of the weights.

    Args:
        callbacks: the run's callbacks.
        beginning: where this start of the run begins.

    Raises:
        ValueError: there is no such callback.
    """
    from callbacks import WeightAveraging

    if beginning.averaged and not any(isinstance(callback, WeightAveraging) for callback in callbacks):
        raise ValueError(
            f"{beginning.checkpoint} contains an average of the weights, but no callback of this run continues it: "
            "keep the callback (callbacks.<its name>._target_=callbacks.WeightAveraging or EMAWeightAveraging)."
        )
