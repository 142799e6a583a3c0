"""Weights that follow the losses: the laws of the fit and of the policy."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from data_modules import Curriculum
from data_modules.order.ado import UNIT, AdoPolicy, CurveFit, LossCurve, fit_curve, fit_curves, update_mix_weights

NAMES = ("a", "b", "c", "d")
TOKENS = np.linspace(2e4, 2e6, 40)
laws = st.builds(
    CurveFit, alpha=st.integers(5, 90).map(lambda n: n / 100), beta=st.floats(1, 100), eps=st.floats(0.5, 4)
)
weights = st.lists(st.floats(0.01, 1), min_size=4, max_size=4).map(
    lambda values: {name: value / sum(values) for name, value in zip(NAMES, values, strict=True)}
)


@given(laws)
def test_a_power_law_without_noise_is_recovered(law: CurveFit) -> None:
    found = fit_curves(TOKENS, law.eps + law.beta * TOKENS**-law.alpha, np.ones(len(TOKENS)))
    assert found == pytest.approx(law, rel=1e-6)
    slope = (law.loss(1e6) - law.loss(1e6 + 1)) / 1
    assert found.speed(1e6) == pytest.approx(slope, rel=1e-4, abs=1e-14)


@given(st.lists(st.floats(0, 10), min_size=3, max_size=20), st.data())
def test_no_law_of_its_kind_fits_better(losses: list[float], data: st.DataObject) -> None:
    """Also where the loss rises, or falls so fast that the best line would go below zero: eps and beta stay above it."""
    tokens = np.cumsum([data.draw(st.floats(1, 100)) for _ in losses])
    importance = np.array([data.draw(st.floats(0.1, 10)) for _ in losses])
    found = fit_curves(tokens, np.array(losses), importance)
    assert found.beta >= 0
    assert found.eps >= 0

    def residuals(law: CurveFit) -> float:
        return float(((law.eps + law.beta * tokens**-law.alpha - losses) ** 2 * importance).sum())

    for _ in range(20):
        scale = tokens.max() ** found.alpha
        other = found._replace(
            beta=max(0.0, found.beta + data.draw(st.floats(-0.1, 0.1)) * scale),
            eps=max(0.0, found.eps + data.draw(st.floats(-0.1, 0.1))),
        )
        assert residuals(found) <= residuals(other) * (1 + 1e-9) + 1e-9


def test_the_transient_and_what_was_not_seen_are_left_out() -> None:
    law = CurveFit(0.3, 40.0, 2.0)
    losses = law.eps + law.beta * TOKENS**-law.alpha
    losses[:8] += 5.0
    bearing = np.full(len(TOKENS), 100.0)
    bearing[12] = 0.0
    curve = LossCurve(TOKENS, losses * bearing, bearing)
    assert fit_curve(curve, leave_out=float(TOKENS[7])) == pytest.approx(law, rel=1e-6)
    assert fit_curve(curve, leave_out=float(TOKENS[6])) != pytest.approx(law, rel=1e-2)
    assert fit_curve(curve, leave_out=float(TOKENS[-3])) is None  # two points say nothing of three unknowns


fits = st.fixed_dictionaries(dict.fromkeys(NAMES, st.none() | laws))
pasts = st.lists(st.tuples(st.integers(1, 400), weights), min_size=1, max_size=6)
floors = st.dictionaries(st.sampled_from(NAMES), st.floats(0, 0.24))


@given(fits, weights, pasts, floors)
def test_weights_add_up_keep_their_floor_and_are_exact_in_a_file(
    laws_by_source: dict[str, CurveFit | None],
    prior: dict[str, float],
    past: list[tuple[int, dict[str, float]]],
    floor: dict[str, float],
) -> None:
    found = update_mix_weights(laws_by_source, tokens=1e6, prior=prior, past=past, floors=floor)
    assert sum(found.values()) == 1.0
    assert all((value / UNIT).is_integer() and value > 0 for value in found.values())
    assert all(found[source] >= least for source, least in floor.items())
    # a tenth of the way at most, as no preference is below 0 or above 1
    mean = {s: sum(n * w[s] for n, w in past) / sum(n for n, _ in past) for s in NAMES}
    if not floor:
        assert all(0.9 * mean[s] - UNIT <= found[s] <= 0.9 * mean[s] + 0.1 + 4 * UNIT for s in NAMES)


@given(fits, weights, pasts, floors, st.permutations(NAMES))
def test_the_order_of_the_sources_does_not_matter(
    laws_by_source: dict[str, CurveFit | None],
    prior: dict[str, float],
    past: list[tuple[int, dict[str, float]]],
    floor: dict[str, float],
    order: list[str],
) -> None:
    def permuted(by_source: dict) -> dict:  # type: ignore[type-arg]
        return {source: by_source[source] for source in order if source in by_source}

    ours = update_mix_weights(laws_by_source, tokens=1e6, prior=prior, past=past, floors=floor)
    theirs = update_mix_weights(
        permuted(laws_by_source),
        tokens=1e6,
        prior=permuted(prior),
        past=[(n, permuted(used)) for n, used in past],
        floors=permuted(floor),
    )
    assert theirs == pytest.approx(ours, abs=2 * UNIT)


@given(laws, laws, st.integers(1, 500))
def test_the_source_that_still_learns_fastest_gains(one: CurveFit, other: CurveFit, steps: int) -> None:
    tokens = 1e6
    assume(one.speed(tokens) > 1.01 * other.speed(tokens))
    prior = {"a": 0.5, "b": 0.5}
    past = [(steps, prior)]
    for _ in range(5):  # and goes on gaining
        found = update_mix_weights({"a": one, "b": other}, tokens=tokens, prior=prior, past=past, floors={})
        assert found["a"] > sum(n * used["a"] for n, used in past) / sum(n for n, _ in past)
        past.append((steps, found))


def test_less_credit_where_it_was_hardly_trained_on() -> None:
    """Of two losses that fall alike, the one of the source that was trained on less fell by the other's help."""
    law, prior = CurveFit(0.3, 40.0, 2.0), {"a": 0.5, "b": 0.5}
    found = update_mix_weights(
        {"a": law, "b": law},
        tokens=1e6,
        prior=prior,
        past=[(50, {"a": 0.1, "b": 0.9}), (50, {"a": 0.9, "b": 0.1})],
        floors={},
    )
    lately = 0.9 + ((0.1 + 0.4 * 0.9**50) - 0.9) * 0.9**50
    credit = lately**0.5 / (lately**0.5 + (1 - lately) ** 0.5)
    assert found["a"] == pytest.approx(0.1 * credit + 0.9 * 0.5, abs=2 * UNIT)


def test_nothing_known_is_the_prior() -> None:
    prior = {"a": 0.75, "b": 0.25}
    nothing: dict[str, CurveFit | None] = {"a": None, "b": None}
    still = {"a": CurveFit(0.3, 0.0, 2.0), "b": CurveFit(0.3, 0.0, 3.0)}
    for laws_by_source in (nothing, still):
        assert update_mix_weights(laws_by_source, tokens=1e6, prior=prior, past=[(10, prior)], floors={}) == prior


@given(st.integers(1, 300), st.floats(0, 0.99), st.integers(1, 3000))
def test_updates_are_at_multiples_after_the_warm_up(every: int, warmup: float, steps: int) -> None:
    ado = AdoPolicy(every=every, warmup=warmup)
    least = warmup * steps - 1e-3
    assert ado.updates(after=0, steps=steps) == [s for s in range(every, steps, every) if s >= least]


def curriculum(**changes: object) -> Curriculum:
    options = {"keyframes": {"start": {"at": 0, "weights": {"a": 1, "b": 1}}}, "mixes": {"base": {"a": 1, "b": 1}}}
    return Curriculum(**options | {"ado": {"every": 5, "warmup": 0.1} | changes.pop("ado", {})} | changes)  # type: ignore[arg-type]


def test_a_floor_may_name_a_mix() -> None:
    assert curriculum(ado={"floor": {"base": 0.1, "b": 0.2}}).floors == {"a": 0.1, "b": 0.2}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"ado": {"every": 0}}, r"curriculum\.ado\.every is 0: it must be a number of steps, 1 or more"),
        ({"ado": {"every": 2.0}}, r"curriculum\.ado\.every is 2\.0"),
        ({"ado": {"warmup": 1}}, r"curriculum\.ado\.warmup is 1: it must be a fraction of the run"),
        ({"ado": {"floor": {"a": -1}}}, r"curriculum\.ado\.floor is .*-1.*: it must map sources to numbers"),
        ({"ado": {"floor": {"z": 0.1}}}, r"curriculum\.ado\.floor\.z is in no keyframe and no mix"),
        ({"ado": {"floor": {"all": 0.5}}}, r"curriculum\.ado\.floor adds up to 1: it must add up to less than 1"),
        ({"ado": {"record": 3}}, r"curriculum\.ado\.record is 3: it must be the path"),
        (
            {"replay": {"a": 0.1}},
            r"but the curriculum has the keyframe start and has replay: it must have one keyframe",
        ),
        (
            {"keyframes": {n: {"at": int(n == "late"), "weights": {"a": 1, "b": 1}} for n in ("start", "late")}},
            r"but the curriculum has the keyframes start, late: it must have one keyframe",
        ),
        ({"max_epochs": {"a": 4}}, r"on_exhausted must be redistribute or repeat, not error"),
        (
            {"max_epochs": {"a": 4}, "on_exhausted": "spread"},
            r"on_exhausted must be redistribute or repeat, not spread",
        ),
    ],
)
def test_what_cannot_be_followed_is_refused(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        curriculum(**changes)
