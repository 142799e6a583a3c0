"""The final loss over learning rate and mix, where it is known beforehand."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from analysis.comparison.comparing import Comparison
from analysis.comparison.run import Run
from analysis.comparison.surface_charts import surface_figures
from analysis.comparison.surfaces import axes_of, curves_over, grids_over, parabola
from tests.finished_run import finished

WEIGHTS = "curriculum.keyframes.settled.weights"


def over_rates(*rates: float, **more: Any) -> list[Run]:
    """Losses on a parabola in log10 of the rate, lowest at 0.003 with 2.5."""
    losses = [2.5 + 0.2 * math.log10(rate / 0.003) ** 2 for rate in rates]
    return [
        finished(f"{rate:g}{more}", loss, **{"optimizer.lr": rate}, **more)
        for rate, loss in zip(rates, losses, strict=True)
    ]


def over_mixes(mixes: list[Mapping[str, float]], **more: Any) -> list[Run]:
    weights = [{f"{WEIGHTS}.{source}": weight for source, weight in mix.items()} for mix in mixes]
    return [finished(f"mix {n} {more}", 3.0 + n / 10, **given, **more) for n, given in enumerate(weights)]


def test_a_parabola_is_found_again() -> None:
    x = np.array([-3.0, -2.5, -2.0, -1.0, -2.5])
    (a, b, c), lowest = parabola(x, 0.7 * (x + 2.2) ** 2 + 1.5)
    assert (a, b, c) == pytest.approx((0.7, 2 * 0.7 * 2.2, 0.7 * 2.2**2 + 1.5))
    assert lowest == pytest.approx((-2.2, 1.5))


def test_a_minimum_is_only_claimed_among_the_values_tried() -> None:
    x = np.array([1.0, 2.0, 3.0, 4.0])
    assert parabola(x, (x - 4.5) ** 2)[1] is None
    assert parabola(x, -((x - 2) ** 2))[1] is None
    assert parabola(x, 2 * x)[1] is None


def test_the_best_learning_rate_is_marked() -> None:
    comparison = Comparison(over_rates(0.0003, 0.001, 0.003, 0.01))
    (axis,) = axes_of(comparison)
    (curve,) = curves_over(comparison, axis, [axis])
    assert curve.lowest == pytest.approx((0.003, 2.5))
    ((heading, figure, remark),) = surface_figures(comparison)
    assert heading == "Final loss over peak learning rate"
    assert figure["layout"]["xaxis"]["type"] == "log"
    assert remark == "The parabola through 4 values is lowest at 0.003 (2.500)."


def test_the_edge_is_said_to_be_one() -> None:
    ((_, _, remark),) = surface_figures(Comparison(over_rates(0.0003, 0.0006, 0.001, 0.002)))
    assert remark == "The lowest loss is at the edge, 0.002: values beyond it may be better."
    ((_, _, remark),) = surface_figures(Comparison(over_rates(0.001, 0.003, 0.01)))
    assert remark.endswith("Three points fix a parabola, so nothing says how well it fits.")


def test_two_values_are_no_surface() -> None:
    assert surface_figures(Comparison(over_rates(0.001, 0.003))) == []


def test_runs_that_differ_in_something_else_make_a_curve_of_their_own() -> None:
    rates = (0.001, 0.003, 0.01)
    comparison = Comparison([*over_rates(*rates, gradient_clip=1.0), *over_rates(*rates, gradient_clip=0.5)])
    (axis,) = axes_of(comparison)
    assert [curve.name for curve in curves_over(comparison, axis, [axis])] == ["gradient_clip=1", "gradient_clip=0.5"]


def test_seeds_lie_on_one_curve() -> None:
    comparison = Comparison([*over_rates(0.001, 0.003, 0.01, seed=1), *over_rates(0.001, 0.003, 0.01, seed=2)])
    (axis,) = axes_of(comparison)
    (curve,) = curves_over(comparison, axis, [axis])
    assert list(curve.x) == [0.001, 0.001, 0.003, 0.003, 0.01, 0.01]


def test_two_shares_of_a_whole_are_one_axis() -> None:
    comparison = Comparison(over_mixes([{"c4": w, "code": 1 - w} for w in (0.2, 0.5, 0.8)]))
    (axis,) = axes_of(comparison)
    assert axis.label == "share of c4 at keyframe settled, %"
    assert sorted(axis.values.values()) == [20, 50, 80]
    assert len(curves_over(comparison, axis, [axis])) == 1


def test_a_weight_that_is_turned_alone_is_the_axis_and_the_others_follow() -> None:
    mixes = [{"c4": 2.0, "code": w, "chat": 1.0} for w in (1.0, 3.0, 5.0)]
    (axis,) = axes_of(Comparison(over_mixes(mixes)))
    assert axis.label == "share of code at keyframe settled, %"
    assert sorted(axis.values.values()) == [25, 50, 62.5]


def test_three_free_shares_are_two_axes() -> None:
    mixes = [{"a": a, "b": b, "c": 1 - a - b} for a in (0.2, 0.4) for b in (0.1, 0.3)]
    comparison = Comparison(over_mixes(mixes))
    first, second = axes_of(comparison)
    (grid,) = grids_over(comparison, first, second, [first, second])
    assert (grid.x, grid.y) == ([20, 40], [10, 30])
    assert grid.loss.tolist() == [[3.0, 3.2], [3.1, 3.3]]


def test_rate_and_mix_make_a_heat_map() -> None:
    mixes = [{"c4": w, "code": 1 - w} for w in (0.2, 0.5, 0.8)]
    rates = (0.001, 0.003, 0.01)
    runs = [run for rate in rates for run in over_mixes(mixes, **{"optimizer.lr": rate})]
    figures = surface_figures(Comparison(runs))
    assert len(figures) == 3  # over the rate, over the share, and over both
    _, heat, _ = figures[-1]
    (trace,) = heat["data"]
    assert (trace["x"], trace["y"]) == (["0.001", "0.003", "0.01"], ["20", "50", "80"])
    assert trace["z"] == [[3.0] * 3, [3.1] * 3, [3.2] * 3]
    assert sum("★" in text for row in trace["text"] for text in row) == 1


def test_mixes_scattered_over_the_plane_are_no_grid() -> None:
    mixes = [{"a": a / 10, "b": (7 * a % 5) / 10, "c": 1 - a / 10 - (7 * a % 5) / 10} for a in range(1, 6)]
    comparison = Comparison(over_mixes(mixes))
    axes = axes_of(comparison)
    assert len(axes) == 2
    assert grids_over(comparison, *axes, axes) == []
