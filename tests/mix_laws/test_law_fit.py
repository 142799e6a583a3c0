"""Laws fitted to worlds that are known, and to RegMix's runs."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares

from benchmarks.regmix_prediction import DRAWS, chosen_runs, scores
from mix_laws import fit_mix_law, read_mix_runs
from mix_laws.batched_exponential_fit import fit_exponentials
from mix_laws.parameter_fit import LawForm, fit_samples
from tests.synthetic_mix_runs import runs_of, world


@pytest.mark.parametrize("power", [1.0, 0.5])
def test_a_known_law_is_found_from_twenty_runs(power: float) -> None:
    truth = world(power=power)
    law = fit_mix_law(*runs_of(truth, 20))
    unseen, _ = runs_of(truth, 300, seed=7)
    off = np.sqrt(((law.predict(unseen) - truth(unseen)) ** 2).mean())
    assert law.form.power == power
    assert off < 0.006  # the noise of a run is 0.005
    assert off < 0.3 * np.sqrt((law.check.linear**2).mean())


def test_without_noise_the_parameters_themselves_are_found() -> None:
    truth = world()
    ratios, losses = runs_of(truth, 60, noise=0.0)
    law = fit_mix_law(ratios, losses, powers=(1.0,))
    assert law.predict(ratios) == pytest.approx(losses, abs=1e-3)
    assert law.c == pytest.approx(truth(np.full((1, 4), 0.25))[0] - np.exp(law.t.mean(axis=1)), abs=2e-3)


def test_one_run_that_went_wrong_does_not_bend_the_law() -> None:
    truth = world()
    ratios, losses = runs_of(truth, 24)
    losses[5] += 0.5
    unseen, _ = runs_of(truth, 300, seed=7)
    off = np.abs(fit_mix_law(ratios, losses).predict(unseen) - truth(unseen)).mean()
    assert off < 0.02  # an even share of the blow would be 0.5 / 24 at the mean of the runs


@pytest.mark.parametrize("seed", range(4))
def test_no_better_minimum_is_found_by_scipy(seed: int) -> None:
    random = np.random.default_rng(seed)
    ratios, losses = runs_of(world(seed=seed), 15, noise=0.05, seed=seed)
    x, y = np.vstack([ratios, np.eye(4)]), np.vstack([losses, losses.mean(axis=0)[None].repeat(4, axis=0)]).T
    weights = np.column_stack([random.uniform(0.2, 2, (4, 15)), np.full((4, 4), 0.1)])
    fitted = fit_exponentials(x, y, weights, np.zeros(4))
    for n in range(4):

        def error(p: np.ndarray, n: int = n) -> np.ndarray:
            residuals: np.ndarray = np.sqrt(weights[n]) * (p[0] + np.exp(x @ p[1:]) - y[n])
            return residuals

        ours = (error(fitted[n]) ** 2).sum()
        theirs = [
            least_squares(error, [y[n].min() - below, *np.full(4, np.log(y[n].mean() - y[n].min() + below))]).cost * 2
            for below in (0.05, 0.3, 1.0)
        ]
        assert ours <= min(theirs) * 1.02  # in a flat valley it stops early
        assert fitted[n, 0] >= 0


@settings(max_examples=10, deadline=None)
@given(counts=st.lists(st.integers(1, 2), min_size=16, max_size=16), left_out=st.sets(st.integers(0, 15), max_size=4))
def test_a_run_that_counts_twice_is_two_runs(counts: list[int], left_out: set[int]) -> None:
    counts = [0 if n in left_out else count for n, count in enumerate(counts)]
    ratios, losses = runs_of(world(), 16)
    form = LawForm(1.0, 0.01)
    start = fit_samples(ratios, losses, np.ones((1, 16)), form)[0]
    weighted = fit_samples(ratios, losses, np.array([counts], dtype=float), form, start=start)
    repeated = np.repeat(np.arange(16), counts)
    again = fit_samples(ratios[repeated], losses[repeated], np.ones((1, len(repeated))), form, start=start)
    features = ratios[repeated]
    first, second = (f[0, :, 0] + np.exp(features @ f[0, :, 1:].T) for f in (weighted, again))
    assert first == pytest.approx(second, abs=0.02)  # Huber's scale is that of the runs, and of their repeats


def test_sources_have_no_order() -> None:
    ratios, losses = runs_of(world(), 20)
    order = [2, 0, 3, 1]
    law, other = fit_mix_law(ratios, losses), fit_mix_law(ratios[:, order], losses)
    assert other.predict(ratios[:, order]) == pytest.approx(law.predict(ratios), abs=1e-3)
    assert other.t == pytest.approx(law.t[:, order], abs=0.2)


def test_one_loss_is_a_row_of_many() -> None:
    ratios, losses = runs_of(world(), 20)
    law = fit_mix_law(ratios, losses[:, 1])
    assert law.predict(ratios).shape == (20,)
    assert [end.shape for end in law.interval(ratios)] == [(20,), (20,)]
    assert law.predict(ratios) == pytest.approx(losses[:, 1], abs=0.03)


def test_intervals_hold_the_truth_and_new_runs() -> None:
    inside, of_runs = [], []
    for seed in range(5):
        truth = world(power=0.5, seed=seed)
        law = fit_mix_law(*runs_of(truth, 20, seed=seed))
        unseen, measured = runs_of(truth, 100, seed=seed + 50)
        low, high = law.interval(unseen)
        inside.append(((truth(unseen) >= low) & (truth(unseen) <= high)).mean())
        assert (high - low).mean() < 0.03
        low, high = law.run_interval(unseen)
        of_runs.append(((measured >= low) & (measured <= high)).mean())
    assert np.mean(inside) > 0.85
    assert 0.9 < np.mean(of_runs) < 0.995


def test_what_cannot_be_fitted_is_refused_in_one_sentence() -> None:
    ratios, losses = runs_of(world(), 10)
    spoilt = losses.copy()
    spoilt[3, 1] = np.nan
    for bad, message in (
        ((ratios, spoilt), r"run 3 is not finite"),
        ((ratios, losses[:9]), r"losses has the shape \(9, 4\)"),
        ((ratios * 2, losses), r"row 0 of ratios sums to 2"),
        ((ratios[0], losses[0]), r"must be a table"),
        ((ratios[:2], losses[:2]), r"there are 2 runs"),
        ((ratios, -losses), r"run 0 is negative"),
    ):
        with pytest.raises(ValueError, match=message):
            fit_mix_law(*bad)
    with pytest.raises(ValueError, match="ratios has 3 sources"):
        fit_mix_law(ratios, losses).predict(np.full((1, 3), 1 / 3))


def test_regmix_from_sixty_four_runs_and_from_all(shared_data: Path) -> None:
    """The published law from its own runs; and the roots of shares, which are chosen, far beyond it."""
    runs = read_mix_runs(str(shared_data / "regmix"))
    assert runs.held_out is not None
    assert (runs.ratios.shape, runs.held_out.losses.shape) == ((512, 17), (256, 13))
    assert runs.sources[0] == runs.validation[0] == "arxiv"

    def means(powers: tuple[float, ...], chosen: list[np.ndarray]) -> np.ndarray:
        laws = (fit_mix_law(runs.ratios[of], runs.losses[of], powers=powers) for of in chosen)
        asked, measured = runs.held_out.ratios, runs.held_out.losses  # type: ignore[union-attr]
        return np.mean([scores(law.predict(asked), measured) for law in laws], axis=0)

    few, every = [chosen_runs(512, draw) for draw in DRAWS], [np.arange(512)]
    assert (means((1.0,), few) > (0.955, 0.88)).all()
    assert (means((1.0,), every) > (0.975, 0.917)).all()
    assert (means((1.0, 0.5), few) > (0.975, 0.94)).all()
    assert (means((1.0, 0.5), every) > (0.985, 0.97)).all()
