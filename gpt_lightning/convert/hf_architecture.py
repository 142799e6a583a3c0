"""What our readers and writers for the two `transformers` architectures share."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from gpt_lightning.convert.weight_renaming import RenamingTable
from gpt_lightning.model import GPTConfig
from gpt_lightning.model.part_registry import BACKENDS


class Architecture(NamedTuple):
    """Maps the weights and options of a `transformers` architecture to ours, and lists what cannot be mapped."""

    table: RenamingTable
    prefix: str
    """Prefix of all keys except the head's. Files without a head have no prefix."""
    derived: re.Pattern[str]
    """Keys of masks and frequencies in older files. These values follow from the sizes, so they are not read."""
    silent: Mapping[str, Any]
    """Defaults of transformers for options that config.json does not state."""
    only: Mapping[str, Any]
    """Options of config.json for which our model supports only this value."""
    read: Callable[[Mapping[str, Any]], GPTConfig]
    """Converts config.json, completed and checked against `only`, to our config; raises ValueError if our model cannot
    represent config.json.
    """
    expressible: Callable[[GPTConfig], Mapping[str, tuple[Any, ...]]]
    """Our options -> the values that the architecture supports. Options not listed do not affect the logits."""
    write: Callable[[GPTConfig], dict[str, Any]]
    """Converts our config to config.json, except the entries that all architectures share."""


def with_default_values(architecture: Architecture, options: Mapping[str, Any]) -> dict[str, Any]:
    """Complete config.json with the defaults of transformers.

    Args:
        architecture: One of the supported architectures.
        options: The content of config.json.

    Returns:
        All options, with the RoPE options at the top level.

    Raises:
        ValueError: An option has a value that our model does not support.
    """
    options = dict(architecture.silent) | dict(options)
    for key in ("rope_parameters", "rope_scaling"):  # transformers 5 and 4
        rope = options.pop(key, None) or {}
        kind = rope.get("rope_type", rope.get("type", "default")) if isinstance(rope, dict) else None
        if kind != "default" or any(isinstance(value, dict) for value in rope.values()):
            raise ValueError(f"{key} is {rope}: only unscaled RoPE (rope_type default) is supported")
        options |= {name: rope[name] for name in ("rope_theta", "partial_rotary_factor") if name in rope}
    for key, value in architecture.only.items():
        if options.get(key, value) != value:
            raise ValueError(f"{key} is {options[key]!r}: it must be {value!r}, the only value supported")
    return options


def check_expressible(expressible: Mapping[str, tuple[Any, ...]], config: GPTConfig, *, name: str) -> None:
    """Check that a model written in another format would compute the same logits.

    Args:
        expressible: Our options -> the values that the format supports.
        config: Configuration of the model.
        name: Name of the target format, for the error message.

    Raises:
        ValueError: An option of the model has a value that the format does not support.
    """
    for option, values in {**expressible, "attention": standard_attention()}.items():
        value = getattr(config, option)
        if value not in values:
            raise ValueError(
                f"model.{option} is {value}: the format {name} supports only {' or '.join(map(str, values))}. "
                "Use the format gpt_lightning."
            )


def standard_attention() -> tuple[str, ...]:
    """Return the values of `model.attention` that compute softmax attention, as other projects do."""
    return ("auto", *(name for name, backend in BACKENDS.items() if backend.traits.standard))
