"""The final loss over learning rate and mix, where it is known beforehand."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from analysis.comparison.comparison import Comparison
from analysis.comparison.parabola_fit import Parabola
from analysis.comparison.response_surface_charts import response_surface_figures, tick_texts
from analysis.comparison.response_surfaces import loss_curves, loss_grids, swept_axes
from analysis.comparison.run import Run
from tests.synthetic_runs import finished

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


def test_the_best_learning_rate_is_marked() -> None:
    comparison = Comparison(over_rates(0.0003, 0.001, 0.003, 0.01))
    (axis,) = swept_axes(comparison)
    (curve,) = loss_curves(comparison, axis, [axis])
    assert isinstance(curve.optimum, Parabola)
    assert (10**curve.optimum.at, curve.optimum.loss) == pytest.approx((0.003, 2.5))
    ((heading, figure, remark),) = response_surface_figures(comparison)
    assert heading == "Final loss over peak learning rate"
    assert figure["layout"]["xaxis"]["type"] == "log"
    assert stars(figure) == [([pytest.approx(0.003)], [pytest.approx(2.5)])]
    assert remark == "The least-squares parabola (4 values around the best, 4 runs) has its minimum at 0.003 (2.500)."


def stars(figure: dict[str, Any]) -> list[tuple[list[float], list[float]]]:
    return [(trace["x"], trace["y"]) for trace in figure["data"] if trace.get("marker", {}).get("symbol") == "star"]


def test_no_optimum_is_claimed_at_the_edge_or_from_three_values() -> None:
    ((_, figure, remark),) = response_surface_figures(Comparison(over_rates(0.0003, 0.0006, 0.001, 0.002)))
    assert remark == "The lowest loss is at the edge, 0.002: values beyond it may be better."
    assert stars(figure) == []
    ((_, figure, remark),) = response_surface_figures(Comparison(over_rates(0.001, 0.003, 0.01)))
    assert (
        remark
        == "The lowest loss is at 0.003; no parabola is fitted, because there are fewer than four values around it."
    )
    assert stars(figure) == []
    assert {trace["name"] for trace in figure["data"]} == {"runs", "mean of each value"}


def test_a_shared_seed_does_not_hide_the_optimum() -> None:
    """Seeds that lie apart by more than the whole curve is deep; without the pairs nothing could be told."""
    draws = np.random.default_rng(0)
    rates = (0.0003, 0.001, 0.003, 0.01, 0.03)
    runs = []
    for rate in rates:
        for seed in (1, 2, 3):
            loss = 2.5 + 0.2 * math.log10(rate / 0.003) ** 2 + seed + draws.normal(scale=0.003)
            runs.append(finished(f"{rate} {seed}", loss, **{"optimizer.lr": rate, "seed": seed}))
    ((_, figure, remark),) = response_surface_figures(Comparison(runs))
    (((at,), (loss,)),) = stars(figure)
    assert at == pytest.approx(0.003, rel=0.15)
    assert loss == pytest.approx(2.5 + 2, abs=0.01)  # of the mean seed
    assert "(5 values around the best, 15 runs)" in remark


def test_what_is_set_is_said_beside_the_share_that_is_shown() -> None:
    mixes = [{"c4": 7.0, "code": w} for w in (1.0, 3.0, 9.0)]
    ((_, figure, remark),) = response_surface_figures(Comparison(over_mixes(mixes)))
    assert "Weights are shares of their sum: code=1 is 12.5 %, code=3 is 30 %, code=9 is 56.2 %." in remark
    assert figure["data"][0]["text"][0] == "code=1: share of code at keyframe settled 12.5 %"
    ((_, _, remark),) = response_surface_figures(
        Comparison(over_mixes([{"c4": w, "code": 1 - w} for w in (0.2, 0.5, 0.8)]))
    )
    assert "Weights" not in remark  # they are the shares


def test_ticks_have_three_digits_or_as_many_as_tell_them_apart() -> None:
    assert tick_texts([12.5, 400 / 11, 60.0]) == ["12.5", "36.4", "60"]
    assert tick_texts([0.10001, 0.10002]) == ["0.10001", "0.10002"]


def test_two_values_are_no_surface() -> None:
    assert response_surface_figures(Comparison(over_rates(0.001, 0.003))) == []


def test_runs_that_differ_in_something_else_make_a_curve_of_their_own() -> None:
    rates = (0.001, 0.003, 0.01)
    comparison = Comparison([*over_rates(*rates, gradient_clip=1.0), *over_rates(*rates, gradient_clip=0.5)])
    (axis,) = swept_axes(comparison)
    assert [curve.name for curve in loss_curves(comparison, axis, [axis])] == ["gradient_clip=1", "gradient_clip=0.5"]


def test_seeds_lie_on_one_curve() -> None:
    comparison = Comparison([*over_rates(0.001, 0.003, 0.01, seed=1), *over_rates(0.001, 0.003, 0.01, seed=2)])
    (axis,) = swept_axes(comparison)
    (curve,) = loss_curves(comparison, axis, [axis])
    assert list(curve.x) == [0.001, 0.001, 0.003, 0.003, 0.01, 0.01]


def test_two_shares_of_a_whole_are_one_axis() -> None:
    comparison = Comparison(over_mixes([{"c4": w, "code": 1 - w} for w in (0.2, 0.5, 0.8)]))
    (axis,) = swept_axes(comparison)
    assert axis.label == "share of c4 at keyframe settled, %"
    assert sorted(axis.values.values()) == [20, 50, 80]
    assert len(loss_curves(comparison, axis, [axis])) == 1


def test_a_weight_that_is_turned_alone_is_the_axis_and_the_others_follow() -> None:
    mixes = [{"c4": 2.0, "code": w, "chat": 1.0} for w in (1.0, 3.0, 5.0)]
    (axis,) = swept_axes(Comparison(over_mixes(mixes)))
    assert axis.label == "share of code at keyframe settled, %"
    assert sorted(axis.values.values()) == [25, 50, 62.5]


def test_three_free_shares_are_two_axes() -> None:
    mixes = [{"a": a, "b": b, "c": 1 - a - b} for a in (0.2, 0.4) for b in (0.1, 0.3)]
    comparison = Comparison(over_mixes(mixes))
    first, second = swept_axes(comparison)
    (grid,) = loss_grids(comparison, first, second, [first, second])
    assert (grid.x, grid.y) == ([20, 40], [10, 30])
    assert grid.loss.tolist() == [[3.0, 3.2], [3.1, 3.3]]


def test_rate_and_mix_make_a_heat_map() -> None:
    mixes = [{"c4": w, "code": 1 - w} for w in (0.2, 0.5, 0.8)]
    rates = (0.001, 0.003, 0.01)
    runs = [run for rate in rates for run in over_mixes(mixes, **{"optimizer.lr": rate})]
    figures = response_surface_figures(Comparison(runs))
    assert len(figures) == 3  # over the rate, over the share, and over both
    _, heat, _ = figures[-1]
    (trace,) = heat["data"]
    assert (trace["x"], trace["y"]) == (["0.001", "0.003", "0.01"], ["20", "50", "80"])
    assert trace["z"] == [[3.0] * 3, [3.1] * 3, [3.2] * 3]
    assert sum("★" in text for row in trace["text"] for text in row) == 1


def test_mixes_scattered_over_the_plane_are_no_grid() -> None:
    mixes = [{"a": a / 10, "b": (7 * a % 5) / 10, "c": 1 - a / 10 - (7 * a % 5) / 10} for a in range(1, 6)]
    comparison = Comparison(over_mixes(mixes))
    axes = swept_axes(comparison)
    assert len(axes) == 2
    assert loss_grids(comparison, *axes, axes) == []
