"""The smallest change by which a curriculum that asks for too much holds."""

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

from data_modules.curriculum import Curriculum
from data_modules.order import Exhausted

_Change = tuple[dict[str, Any], list[str]]  # the section `curriculum` as it would be, and what to type for it
_HALVINGS = 12


def smallest_change(
    curriculum: Mapping[str, Any], refused: Exhausted, plan: Callable[[Curriculum], object]
) -> list[str]:
    """The settings of the changed curriculum, as they are typed, found by planning again and again.

    Where a source exceeds its limit, it is its weight that is lowered, in every keyframe and mix alike; where all that have
    weight have ended, limits are raised. Numbers are rounded to three digits, to the side on which the plan holds.

    Args:
        curriculum: the section of the config.
        refused: what was said of it.
        plan: makes an order of a curriculum, or raises Exhausted.

    Returns:
        settings like `curriculum.mixes.target.alpaca=0.0113`; none, if no such change is enough.
    """
    source = refused.source

    def changed(amount: float) -> _Change:
        return _limits_raised(curriculum, amount) if source is None else _weights_lowered(curriculum, source, amount)

    def holds(amount: float) -> bool:
        try:
            plan(Curriculum(**changed(amount)[0]))
        except Exhausted as other:
            return other.source != source  # that one is another problem
        return True

    too_little, enough = (1.0, 1000.0) if source is None else (1.0, 0.001)  # factors
    if not holds(enough):
        return []
    for _ in range(_HALVINGS):
        middle = math.sqrt(too_little * enough)
        if holds(middle):
            enough = middle
        else:
            too_little = middle
    return changed(enough)[1]


def _weights_lowered(curriculum: Mapping[str, Any], source: str, factor: float) -> _Change:
    changed, settings = copy.deepcopy(dict(curriculum)), []
    places = {f"keyframes.{name}.weights": frame["weights"] for name, frame in changed["keyframes"].items()}
    for where, weights in (places | {f"mixes.{name}": mix for name, mix in changed["mixes"].items()}).items():
        if weights.get(source, 0) > 0:
            weights[source] = _rounded(weights[source] * factor, math.floor)
            settings.append(f"curriculum.{where}.{source}={weights[source]:g}")
    return changed, settings


def _limits_raised(curriculum: Mapping[str, Any], factor: float) -> _Change:
    limits = {name: _rounded(most * factor, math.ceil) for name, most in curriculum["max_epochs"].items()}
    return {**curriculum, "max_epochs": limits}, [f"curriculum.max_epochs.{name}={n:g}" for name, n in limits.items()]


def _rounded(value: float, direction: Callable[[float], int]) -> float:
    """To three significant digits."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    return float(f"{direction(value / unit) * unit:.3g}")
