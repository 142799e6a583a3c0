"""Whether a difference is more than what another seed makes, as the columns of a comparison say it."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pytest
from scipy import stats

from analysis.comparison.comparison import Comparison, MetricResult
from analysis.comparison.tukey_test import AdditiveNoiseModel
from tests.synthetic_runs import finished

LOSS = "val/loss/mean"


def compared(losses: Mapping[tuple[float, int], float]) -> Comparison:
    """Runs of (learning rate, seed) that ended with these losses."""
    return Comparison(
        [finished(f"{lr} {seed}", loss, **{"optimizer.lr": lr, "seed": seed}) for (lr, seed), loss in losses.items()]
    )


def by_rate(comparison: Comparison, key: str = LOSS) -> dict[float, MetricResult]:
    rates = [candidate.runs[0].settings["optimizer.lr"] for candidate in comparison.candidates]
    return dict(zip(rates, comparison.column(key), strict=True))


def simulated(settings: int, seeds: int, *, shared: bool, pages: int) -> Iterator[Comparison]:
    """Pages of settings that are equal: with the same seeds, whose effect is five times the residual, or each with its own."""
    draws = np.random.default_rng(settings + 100 * seeds + shared)
    for _ in range(pages):
        effects = draws.normal(scale=5.0 * shared, size=seeds)
        yield compared(
            {
                (n, seed if shared else seed + n * seeds): 100 + effects[seed] + draws.normal()
                for n in range(settings)
                for seed in range(seeds)
            }
        )


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(("settings", "seeds"), [(4, 2), (8, 3), (20, 2)])
def test_of_equal_settings_a_twentieth_of_the_pages_calls_one_worse(settings: int, seeds: int, shared: bool) -> None:
    """Also where the best was picked from twenty; and not much less, which would be a test that finds nothing."""
    pages = 800
    wrong = sum(
        any(cell.beyond_noise for cell in comparison.column(LOSS))
        for comparison in simulated(settings, seeds, shared=shared, pages=pages)
    )
    assert 0.035 < wrong / pages < 0.07


def test_a_shared_seed_is_no_noise() -> None:
    """The seeds lie ten residuals apart, the settings five: seen between runs of one seed alone."""
    draws = np.random.default_rng(1)
    losses = {
        (lr, seed): 3.0 + 0.05 * (lr > 2) + 0.1 * seed + 0.01 * draws.normal() for lr in (1, 2, 3) for seed in range(4)
    }
    comparison = compared(losses)
    noise = comparison.noise(LOSS)
    assert noise is not None
    assert noise.paired
    assert noise.degrees == 12 - 3 - 4 + 1
    assert noise.deviation == pytest.approx(0.01, rel=0.5)
    assert [cell.beyond_noise for cell in by_rate(comparison).values() if not cell.lowest] == [False, True]
    unpaired = compared({(lr, 10 * lr + seed): loss for (lr, seed), loss in losses.items()})
    alone = unpaired.noise(LOSS)
    assert alone is not None
    assert not alone.paired
    assert alone.deviation is not None
    assert alone.deviation > 0.1
    assert not any(cell.beyond_noise for cell in unpaired.column(LOSS))


def two_way(
    values: np.ndarray, settings: Sequence[int], seeds: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, float, int]:
    """Effects, their covariance over the residual's variance, its deviation and degrees: the first setting and seed are 0."""
    columns = [np.ones(len(values))]
    columns += [np.equal(settings, n) for n in range(1, max(settings) + 1)]
    columns += [np.equal(seeds, n) for n in range(1, max(seeds) + 1)]
    x = np.array(columns, dtype=float).T
    inverse = np.linalg.inv(x.T @ x)
    effects = inverse @ x.T @ values
    degrees = len(values) - x.shape[1]
    return effects, inverse, float(np.sqrt(np.square(values - x @ effects).sum() / degrees)), degrees


@pytest.mark.parametrize("draw", range(5))
def test_designs_with_gaps_are_a_two_way_regression(draw: int) -> None:
    draws = np.random.default_rng(draw)
    full = [(setting, seed) for setting in range(4) for seed in range(4)]
    cells = [cell for n, cell in enumerate(full) if n not in draws.choice(16, 4, replace=False)]
    settings, seeds = [cell[0] for cell in cells], [cell[1] for cell in cells]
    values = 3 + 0.03 * np.array(settings) + draws.normal(size=4)[seeds] + 0.02 * draws.normal(size=len(cells))
    effects, inverse, deviation, degrees = two_way(values, settings, seeds)
    assert np.linalg.cond(inverse) < 1e6  # the oracle needs a design in which all hangs together
    level = [0.0, *effects[1:4]]
    best = int(np.argmin(level))
    comparison = compared({(setting + 1, seed): float(v) for (setting, seed), v in zip(cells, values, strict=True)})
    noise = comparison.noise(LOSS)
    assert noise is not None
    assert (noise.degrees, noise.deviation) == (degrees, pytest.approx(deviation))
    for rate, cell in by_rate(comparison).items():
        n = int(rate) - 1
        assert cell.mean == pytest.approx(values[np.equal(settings, n)].mean())
        assert cell.lowest == (n == best)
        if not cell.lowest:
            contrast = np.zeros(len(effects))
            contrast[1:4] = np.eye(4)[n][1:] - np.eye(4)[best][1:]
            variance = deviation**2 * float(contrast @ inverse @ contrast)
            assert cell.difference == pytest.approx(level[n] - level[best])
            expected = stats.studentized_range.sf(cell.difference / math.sqrt(variance / 2), 4, degrees)
            assert cell.p_value == pytest.approx(expected, rel=1e-4, abs=1e-9)
            assert cell.beyond_noise == (expected < 0.05)


def test_two_settings_are_students_t() -> None:
    """Of one pair Tukey's test is the t-test: of two samples without shared seeds, of pairs with them."""
    a, b = [3.0, 3.1, 3.3], [3.2, 3.35, 3.4]
    alone = by_rate(compared({(1, n): v for n, v in enumerate(a)} | {(2, 9 + n): v for n, v in enumerate(b)}))
    assert alone[2].p_value == pytest.approx(stats.ttest_ind(a, b).pvalue)
    pairs = by_rate(compared({(1, n): v for n, v in enumerate(a)} | {(2, n): v for n, v in enumerate(b)}))
    assert pairs[2].p_value == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert pairs[2].deviation == pytest.approx(np.std(b, ddof=1))


def test_settings_that_share_no_seed_with_the_others_have_no_verdict() -> None:
    losses = {(lr, seed): 3 + lr / 100 + seed / 10 + (lr * seed % 3) / 500 for lr in (1, 2) for seed in (1, 2)}
    cells = by_rate(compared(losses | {(3, 9): 3.5}))
    assert cells[1].lowest
    assert cells[2].p_value is not None
    assert (cells[3].p_value, cells[3].beyond_noise) == (None, None)
    assert math.isnan(cells[3].difference)


def test_one_seed_in_common_makes_no_pairs() -> None:
    noise = compared({(1, 1): 3.0, (1, 2): 3.1, (2, 1): 3.2, (2, 3): 3.25}).noise(LOSS)
    assert noise is not None
    assert (noise.paired, noise.degrees) == (False, 2)


def test_a_chain_of_seeds_that_leaves_no_degree_is_no_model_of_pairs() -> None:
    chain = {(1, 1): 3.0, (1, 2): 3.1, (2, 2): 3.2, (2, 3): 3.25, (3, 3): 3.3}
    noise = compared(chain).noise(LOSS)
    assert noise is not None
    assert (noise.paired, noise.degrees) == (False, 2)


def test_without_repeats_there_is_no_noise() -> None:
    cells = by_rate(compared({(1, 1): 3.0, (2, 1): 3.1}))
    assert cells[2].difference == pytest.approx(0.1)
    assert (cells[2].p_value, cells[2].beyond_noise, cells[2].deviation) == (None, None, None)


def test_repeats_that_are_equal_to_the_bit_say_nothing_of_chance() -> None:
    for losses in (
        {(1, 1): 3.0, (1, 2): 3.0, (2, 3): 3.1},
        {(r, s): 3.1 + r / 7 for r in (1, 2, 3) for s in (1, 2, 3)},
    ):
        comparison = compared(losses)
        noise = comparison.noise(LOSS)
        assert noise is not None
        assert noise.degrees > 0
        assert noise.deviation is None
        assert {cell.beyond_noise for cell in comparison.column(LOSS)} == {None}


def test_loss_and_perplexity_have_one_verdict_however_large() -> None:
    losses = {
        (1, 1): 3.0,
        (1, 2): 3.05,
        (2, 1): 400.0,
        (2, 2): 500.0,
        (3, 1): 3.01,
        (3, 2): 3.02,
        (4, 1): 800.0,
        (4, 2): 3.0,
    }
    comparison = compared(losses)
    by_loss, by_perplexity = by_rate(comparison), by_rate(comparison, "val/perplexity/mean")
    for rate, cell in by_loss.items():
        assert by_perplexity[rate].beyond_noise == cell.beyond_noise
        assert by_perplexity[rate].lowest == cell.lowest
    assert by_perplexity[2].mean == pytest.approx(math.exp(500) / 2)
    assert by_perplexity[4].mean == math.inf
    huge = by_rate(compared({(1, 1): 1e300, (1, 2): 1.1e300, (2, 1): 1e308, (2, 2): 1.1e308}))
    assert huge[2].p_value is not None


def test_bits_per_byte_have_the_verdict_of_the_loss_they_are_a_constant_times_of() -> None:
    comparison = compared({(1, 1): 3.0, (1, 2): 3.1, (2, 1): 3.2, (2, 2): 3.31})
    p_values = [by_rate(comparison, key)[2].p_value for key in (LOSS, "val/bits_per_byte/mean")]
    assert p_values[0] == pytest.approx(p_values[1])


def test_a_setting_that_diverged_is_in_no_model() -> None:
    with_it = compared({(1, 1): 3.0, (1, 2): 3.1, (2, 1): 3.2, (2, 2): 3.31, (3, 1): math.nan, (3, 2): 3.0})
    noise = with_it.noise(LOSS)
    assert noise is not None
    assert (noise.n_settings, len(noise.values)) == (2, 4)
    cell = by_rate(with_it)[3]
    assert (cell.lowest, cell.p_value, cell.deviation) == (False, None, None)
    assert math.isnan(cell.mean)


def test_unequal_spread_is_noticed_and_equal_spread_is_not() -> None:
    draws = np.random.default_rng(4)
    settings, seeds = np.repeat(range(4), 5).tolist(), list(range(20))
    even = [AdditiveNoiseModel(draws.normal(size=20).tolist(), settings, seeds).unequal_spread for _ in range(300)]
    assert sum(even) < 10
    uneven = [
        AdditiveNoiseModel((draws.normal(size=20) * np.repeat([1, 1, 1, 50], 5)).tolist(), settings, seeds)
        for _ in range(50)
    ]
    assert sum(noise.unequal_spread for noise in uneven) > 45


def test_a_difference_is_significant_from_the_least_difference_on() -> None:
    def apart(difference: float) -> Comparison:
        sign = {0: -0.01, 1: 0.01}
        return compared(
            {(r, s): 3 + difference * (r - 1) + sign[(r + s) // 2 % 2] for r in (1, 2) for s in (1, 2, 3, 4)}
        )

    noise = apart(0).noise(LOSS)
    assert noise is not None
    least = noise.least_difference(4)
    assert least is not None
    assert by_rate(apart(least * 1.001))[2].beyond_noise is True
    assert by_rate(apart(least * 0.999))[2].beyond_noise is False
