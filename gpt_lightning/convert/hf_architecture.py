"""What the two architectures of `transformers` that we read and write have in common."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from gpt_lightning.convert.weight_renaming import RenamingTable
from gpt_lightning.model import GPTConfig


class Architecture(NamedTuple):
    """Where an architecture's weights and options are ours, and where they cannot be."""

    table: RenamingTable
    prefix: str
    """Stands before all keys but the head's; a file of the bare body lacks it."""
    derived: re.Pattern[str]
    """Keys of masks and frequencies that older files hold; they follow from the sizes and are dropped."""
    silent: Mapping[str, Any]
    """What transformers takes where config.json does not say."""
    only: Mapping[str, Any]
    """Options of config.json that have one value with us."""
    read: Callable[[Mapping[str, Any]], GPTConfig]
    """config.json, completed and checked against `only` -> our config; raises ValueError for what cannot be ours."""
    expressible: Callable[[GPTConfig], Mapping[str, tuple[Any, ...]]]
    """Options of ours -> the values that the architecture has; options that are not named do not decide what a model says."""
    write: Callable[[GPTConfig], dict[str, Any]]
    """Our config -> config.json, but for what all architectures share."""


def with_default_values(architecture: Architecture, options: Mapping[str, Any]) -> dict[str, Any]:
    """config.json with what it leaves unsaid.

    Raises:
        ValueError: an option has a value that no GPT of ours computes.
    """
    options = dict(architecture.silent) | dict(options)
    for key in ("rope_parameters", "rope_scaling"):  # transformers 5 and 4
        rope = options.pop(key, None) or {}
        kind = rope.get("rope_type", rope.get("type", "default")) if isinstance(rope, dict) else None
        if kind != "default" or any(isinstance(value, dict) for value in rope.values()):
            raise ValueError(f"{key} is {rope}, and every GPT of this project turns its positions in one way, unscaled")
        options |= {name: rope[name] for name in ("rope_theta", "partial_rotary_factor") if name in rope}
    for key, value in architecture.only.items():
        if options.get(key, value) != value:
            raise ValueError(f"{key} is {options[key]!r}, and every GPT of this project has {value!r}")
    return options


def check_expressible(architecture: Architecture, config: GPTConfig, *, name: str) -> None:
    """A model is written only as what computes the same.

    Raises:
        ValueError: an option of the model's has no counterpart.
    """
    for option, values in architecture.expressible(config).items():
        value = getattr(config, option)
        if value not in values:
            raise ValueError(
                f"model.{option} is {value}, which the format {name} cannot express (only {' or '.join(map(str, values))}): "
                "the format gpt_lightning can."
            )
