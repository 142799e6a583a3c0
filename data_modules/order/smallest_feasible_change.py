"""Find the smallest change that makes an infeasible curriculum feasible."""

import copy
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from data_modules.order.curriculum import Curriculum
from data_modules.order.sample_order import SourceExhaustedError

_Section = Mapping[str, Any]  # the section `curriculum` of the config
_Change = tuple[_Section, dict[str, float]]  # the changed section, and the settings that change it
_HALVINGS = 12
_ROUNDS = 20


def smallest_change(
    curriculum: _Section, refused: SourceExhaustedError, plan: Callable[[Curriculum], object]
) -> list[str]:
    """Find the smallest change of settings that makes a curriculum feasible, by planning repeatedly.

    If a source exceeds its limit, its weight is lowered in every keyframe and mix, or, for a run that has started, in
    the later keyframes. If all sources with weight are exhausted, or no weight is low enough, limits are raised.
    Numbers are rounded to three digits, towards the side on which the plan is feasible.

    Args:
        curriculum: The section of the config.
        refused: The error that the curriculum caused.
        plan: Makes an order from a curriculum. Raises SourceExhaustedError if the curriculum is infeasible, and another
            ValueError if the curriculum would change completed steps.

    Returns:
        Settings such as `curriculum.mixes.target.alpaca=0.0113`; empty if no such change is enough.
    """
    settings: dict[str, float] = {}
    for _ in range(_ROUNDS):  # lowering the weight of one source raises the shares of the others
        found = _mended(curriculum, refused.source, plan)
        if found is None:
            return []
        curriculum, changes = found
        settings |= changes
        try:
            plan(Curriculum(**curriculum))
        except SourceExhaustedError as another:
            refused = another
        else:
            return [f"curriculum.{name}={value:g}" for name, value in settings.items()]
    return []


def _mended(curriculum: _Section, source: str | None, plan: Callable[[Curriculum], object]) -> _Change | None:
    """Return the smallest change after which this source no longer causes the error; None if there is none."""
    if source is None:
        return _first_that_holds(partial(_limits_raised, curriculum), 1000.0, plan)
    limits = curriculum["max_epochs"]
    alone = {**curriculum, "max_epochs": {source: Curriculum(**curriculum).limits[source]}}
    for n in range(len(curriculum["keyframes"])):
        if found := _first_that_holds(partial(_weights_lowered, alone, source, n), 0.001, plan):
            return {**found[0], "max_epochs": limits}, found[1]
    return _first_that_holds(partial(_limits_raised, curriculum), 1000.0, plan)


def _first_that_holds(
    changed: Callable[[float], _Change], enough: float, plan: Callable[[Curriculum], object]
) -> _Change | None:
    """Return the change with the feasible factor nearest to 1; None if `enough` is not feasible either."""

    def holds(factor: float) -> bool:
        try:
            plan(Curriculum(**changed(factor)[0]))
        except ValueError:
            return False
        return True

    if not holds(enough):
        return None
    too_little = 1.0
    for _ in range(_HALVINGS):
        middle = math.sqrt(too_little * enough)
        if holds(middle):
            enough = middle
        else:
            too_little = middle
    return changed(enough)


def _weights_lowered(curriculum: _Section, source: str, from_keyframe: int, factor: float) -> _Change:
    changed = copy.deepcopy(dict(curriculum))
    frames = {f"keyframes.{name}.weights": frame["weights"] for name, frame in changed["keyframes"].items()}
    places = dict(list(frames.items())[from_keyframe:])
    if from_keyframe == 0:  # replay and mixes apply from the start of the run
        places["replay"] = changed["replay"]
        named = {name for weights in places.values() for name, weight in weights.items() if weight > 0}
        places |= {f"mixes.{name}": mix for name, mix in changed["mixes"].items() if name in named}
    settings = {}
    for where, weights in places.items():
        if weights.get(source, 0) > 0:
            weights[source] = settings[f"{where}.{source}"] = _rounded(weights[source] * factor, math.floor)
    return changed, settings


def _limits_raised(curriculum: _Section, factor: float) -> _Change:
    limits = {name: _rounded(most * factor, math.ceil) for name, most in curriculum["max_epochs"].items()}
    return {**curriculum, "max_epochs": limits}, {f"max_epochs.{name}": n for name, n in limits.items()}


def _rounded(value: float, direction: Callable[[float], int]) -> float:
    """Round to three significant digits."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    return float(f"{direction(value / unit) * unit:.3g}")
