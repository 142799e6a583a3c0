"""Weights of sources: what may be one, what they come to as shares, and the least that some of them have."""

import math
from collections.abc import Mapping


def check_weights(where: str, weights: object) -> None:
    """Refuse what are no weights.

    Raises:
        ValueError: naming the setting `where`.
    """
    if not isinstance(weights, Mapping):
        raise ValueError(f"{where} is {weights!r}: it must map sources to weights.")
    for source, weight in weights.items():
        if not is_number(weight) or weight < 0:
            raise ValueError(f"{where}.{source} is {weight!r}: a weight is a number, 0 or more.")
    if not sum(weights.values()) > 0:
        raise ValueError(f"{where} are all zero: at least one source needs a weight above 0.")


def is_number(value: object) -> bool:
    """Whether it is a finite one; true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def normalize_weights(weights: Mapping[str, float]) -> dict[str, float]:
    """The same weights, adding up to 1."""
    total = math.fsum(weights.values())
    return {source: weight / total for source, weight in weights.items()}


def apply_floor(floors: Mapping[str, float], shares: Mapping[str, float]) -> dict[str, float]:
    """The shares with those below their floor raised to it, at the expense of all others by weight."""
    raised: dict[str, float] = {}
    while True:
        free = {source: share for source, share in shares.items() if source not in raised}
        scale = (1 - math.fsum(raised.values())) / math.fsum(free.values()) if raised else 1.0
        short = [s for s, floor in floors.items() if s not in raised and free.get(s, 0.0) * scale < floor]
        if not short:
            return raised | {source: share * scale for source, share in free.items()}
        raised |= {source: floors[source] for source in short}
