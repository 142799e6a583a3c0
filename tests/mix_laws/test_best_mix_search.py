"""The best mix against a grid, caps, closeness, claims; and the mixes to run."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mix_laws import SearchTarget, design_mixes, find_best_mix, fit_mix_law
from mix_laws.experiment_design import MIN_WEIGHT, information
from mix_laws.simplex import caps_array, clip_to_caps, random_mixes, weights_by_source
from mix_laws.verdict_text import best_mix_sentences, chosen_mix
from tests.synthetic_mix_runs import runs_of, world

EVEN = np.full(3, 1 / 3)
CAPS = st.lists(st.floats(0.05, 1.0), min_size=3, max_size=5).filter(lambda caps: sum(caps) > 1.01).map(np.array)


def grid(caps: np.ndarray) -> np.ndarray:
    """Every mix of three sources in steps of a hundredth, under the caps."""
    mixes = [(a, b, 100 - a - b) for a in range(101) for b in range(101 - a)]
    table = np.array(mixes) / 100
    return table[(table <= caps + 1e-9).all(axis=1)]


@pytest.mark.parametrize("power", [1.0, 0.5])
@pytest.mark.parametrize("closeness", [0.0, 0.05])
@pytest.mark.parametrize("caps", [(1.0, 1.0, 1.0), (0.2, 0.5, 0.6)])
def test_no_mix_of_a_grid_is_better(power: float, closeness: float, caps: tuple[float, ...]) -> None:
    law = fit_mix_law(*runs_of(world(power=power, sources=3, seed=1), 20, sources=3), powers=(power,))
    aim = SearchTarget(np.array([0.6, 0.3, 0.1]), EVEN, np.array(caps), closeness)
    best = find_best_mix(law, aim)

    def value(mixes: np.ndarray) -> np.ndarray:
        away = (mixes * np.log(np.maximum(mixes, 1e-12) / EVEN)).sum(axis=1)
        return law.predict(mixes) @ aim.weights + closeness * away

    lowest = value(grid(aim.caps)).min()
    assert value(best.mix[None])[0] <= lowest + 1e-7
    assert value(best.mix[None])[0] > lowest - 0.01
    steps = 0.003 * np.random.default_rng(0).normal(size=(2000, 3))
    near = np.array([clip_to_caps(np.abs(mix) / np.abs(mix).sum(), aim.caps) for mix in best.mix + steps])
    assert value(best.mix[None])[0] <= value(near).min() + 1e-7
    assert best.mix.sum() == pytest.approx(1)
    assert (best.mix <= aim.caps + 1e-9).all()
    assert (best.bind == ((best.mix > aim.caps - 1e-3) & (aim.caps < 1))).all()
    assert best.of_mix.loss == pytest.approx(law.predict(best.mix[None])[0] @ aim.weights)


def test_what_is_far_from_the_prior_must_be_worth_it() -> None:
    law = fit_mix_law(*runs_of(world(sources=3), 20, sources=3))
    prior = np.array([0.7, 0.2, 0.1])
    distances = []
    for closeness in (0.0, 0.02, 0.2, 100.0):
        aim = SearchTarget(EVEN, prior, np.ones(3), closeness)
        distances.append(float(aim.divergence(find_best_mix(law, aim).mix[None])[0]))
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 1e-5


def test_a_mix_is_claimed_where_there_is_one_and_not_in_the_noise() -> None:
    law = fit_mix_law(*runs_of(world(sources=3), 20, sources=3))
    far = SearchTarget(EVEN, np.array([0.94, 0.03, 0.03]), np.ones(3), 0.0)
    best = find_best_mix(law, far)
    assert best.is_better
    assert chosen_mix(best, law) is best.mix
    assert best.to_prior.loss > best.of_mix.loss - best.of_prior.loss  # it was chosen for looking best
    assert best.of_mix.low < best.of_mix.loss < best.of_mix.high
    assert "differs from that of the prior by -" in best_mix_sentences(best, law, "abc")[0]
    own = find_best_mix(law, SearchTarget(EVEN, best.mix, np.ones(3), 0.0))  # the best one is its own prior
    assert not own.is_better
    assert "No mix is significantly better than the prior" in best_mix_sentences(own, law, "abc")[0]
    for seed in range(4):
        nothing = fit_mix_law(*runs_of(world(spread=0.0, sources=3), 20, sources=3, seed=seed))
        found = find_best_mix(nothing, far)
        if not nothing.check.beats_mean:
            assert (chosen_mix(found, nothing) == far.prior).all()
            assert "No mix is significantly better than the prior" in best_mix_sentences(found, nothing, "abc")[0]


def test_caps_that_bind_are_named() -> None:
    law = fit_mix_law(*runs_of(world(sources=3), 20, sources=3))
    aim = SearchTarget(np.array([1.0, 0.0, 0.0]), np.array([0.1, 0.45, 0.45]), np.array([0.3, 1.0, 1.0]), 0.0)
    best = find_best_mix(law, aim)
    assert best.mix[0] == pytest.approx(0.3)
    assert best_mix_sentences(best, law, ["own", "b", "c"])[-1] == "Binding caps: own at 30 %."
    with pytest.raises(ValueError, match="they must sum to at least 1"):
        find_best_mix(law, SearchTarget(EVEN, EVEN, np.array([0.3, 0.3, 0.3]), 0.0))


@given(CAPS, st.integers(0, 1000))
def test_capped_mixes_and_their_weights_keep_to_the_caps(caps: np.ndarray, seed: int) -> None:
    mix = np.random.default_rng(seed).dirichlet(np.full(len(caps), 0.5))
    lowered = clip_to_caps(mix, caps)
    assert lowered.sum() == pytest.approx(1)
    assert (lowered <= caps + 1e-12).all()
    if (mix <= caps).all():
        assert lowered == pytest.approx(mix)
    weights = weights_by_source([str(n) for n in range(len(caps))], lowered, caps)
    assert sum(weights.values()) == pytest.approx(1, abs=1e-9)
    assert all(weight <= cap + 1e-9 for weight, cap in zip(weights.values(), caps, strict=True))
    assert np.array(list(weights.values())) == pytest.approx(lowered, abs=2e-3)


def test_epochs_become_caps() -> None:
    assert caps_array({"a": 100, "b": 1000}, 400, 2.0) == pytest.approx([0.5, 1.0])
    with pytest.raises(ValueError, match=r"2 epochs of a, b are 75% of the 400 sequences"):
        caps_array({"a": 100, "b": 50}, 400, 2.0)


@settings(max_examples=10, deadline=None)
@given(CAPS)
def test_a_design_keeps_to_the_caps_and_leaves_no_source_out(caps: np.ndarray) -> None:
    mixes = design_mixes(3 * len(caps), caps)
    assert mixes.sum(axis=1) == pytest.approx(1)
    assert (mixes <= caps + 1e-9).all()
    assert (mixes >= MIN_WEIGHT - 1e-9).all()
    assert (mixes == design_mixes(3 * len(caps), caps)).all()


def test_a_design_says_more_than_random_mixes_and_no_mix_twice() -> None:
    caps = np.array([1.0, 0.4, 0.6, 0.3])
    mixes = design_mixes(20, caps)
    others = [information(random_mixes(20, caps, floor=MIN_WEIGHT, seed=seed)) for seed in range(20)]
    assert information(mixes) > max(others) + 2
    assert mixes[0] == pytest.approx(clip_to_caps(np.full(4, 0.25), caps))
    apart = np.abs(mixes[:, None] - mixes).sum(axis=2) + 2 * np.eye(20)
    assert apart.min() > 0.09
    with pytest.raises(ValueError, match="mix_design is 7: it must be at least 8 for a law of 4 sources"):
        design_mixes(7, caps)
    with pytest.raises(ValueError, match=r"it must be at least 1%"):
        design_mixes(12, np.array([1.0, 1.0, 0.005]))


def test_a_law_from_the_design_is_surer_than_one_from_random_mixes() -> None:
    truth, unseen = world(power=0.5), runs_of(world(), 300, seed=9)[0]
    off: dict[str, list[float]] = {"design": [], "random": []}
    for seed in range(3):
        random = np.random.default_rng(seed)
        for name, mixes in (
            ("design", design_mixes(20, np.ones(4))),
            ("random", 0.02 + 0.92 * random.dirichlet(np.ones(4), 20)),
        ):
            law = fit_mix_law(mixes, truth(mixes) + 0.005 * random.normal(size=(20, 4)))
            off[name].append(float(np.abs(law.predict(unseen) - truth(unseen)).mean()))
    assert np.mean(off["design"]) < np.mean(off["random"])
