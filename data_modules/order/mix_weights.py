"""Mix weights of sources: validation, normalisation and floors."""

import math
from collections.abc import Mapping


def check_weights(where: str, weights: object) -> None:
    """Check that an object maps sources to valid weights.

    Args:
        where: Name of the setting, for error messages.
        weights: The object.

    Raises:
        ValueError: The object does not map sources to valid weights.
    """
    if not isinstance(weights, Mapping):
        raise ValueError(f"{where} is {weights!r}: it must map sources to weights.")
    for source, weight in weights.items():
        if not is_number(weight) or weight < 0:
            raise ValueError(f"{where}.{source} is {weight!r}: it must be a number, 0 or more.")
    if not sum(weights.values()) > 0:
        raise ValueError(f"{where} are all 0: at least one must be above 0.")


def is_number(value: object) -> bool:
    """Return whether a value is a finite number; bools are not numbers."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def normalize_weights(weights: Mapping[str, float]) -> dict[str, float]:
    """Scale weights so that they sum to 1."""
    total = math.fsum(weights.values())
    return {source: weight / total for source, weight in weights.items()}


def apply_floor(floors: Mapping[str, float], shares: Mapping[str, float]) -> dict[str, float]:
    """Raise shares below their floor to the floor, and scale all other shares down by one factor."""
    raised: dict[str, float] = {}
    while True:
        free = {source: share for source, share in shares.items() if source not in raised}
        scale = (1 - math.fsum(raised.values())) / math.fsum(free.values()) if raised else 1.0
        short = [s for s, floor in floors.items() if s not in raised and free.get(s, 0.0) * scale < floor]
        if not short:
            return raised | {source: share * scale for source, share in free.items()}
        raised |= {source: floors[source] for source in short}
