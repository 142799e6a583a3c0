"""A keyframe of a curriculum: mix weights at one point of the run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data_modules.order.mix_weights import check_weights, is_number


@dataclass(frozen=True)
class Keyframe:
    """Mix weights at one point of the run."""

    at: float
    """In the curriculum's unit: fraction of the run, steps or tokens."""
    weights: Mapping[str, float]
    """Source or mix -> relative weight, 0 or more; sources not listed have weight 0."""


def parse_keyframe(name: str, entry: Keyframe | Mapping[str, Any]) -> Keyframe:
    """Build and check a keyframe of `curriculum.keyframes`.

    Args:
        name: Name of the keyframe, for messages.
        entry: The keyframe, or its settings `at` and `weights`.

    Raises:
        ValueError: `at` or a weight is not a number of 0 or more, all weights are 0, or a key is unknown or missing.
    """
    where = f"curriculum.keyframes.{name}"
    if not isinstance(entry, Keyframe):
        if not isinstance(entry, Mapping):
            raise ValueError(f"{where} is {entry!r}: its keys must be 'at' and 'weights'.")
        if set(entry) != {"at", "weights"}:
            raise ValueError(
                f"{where} has the keys {', '.join(repr(str(key)) for key in entry)}: its keys must be 'at' and 'weights'."
            )
        entry = Keyframe(at=entry["at"], weights=entry["weights"])
    if not is_number(entry.at) or entry.at < 0:
        raise ValueError(f"{where}.at is {entry.at!r}: it must be a number, 0 or more.")
    check_weights(f"{where}.weights", entry.weights)
    return entry
