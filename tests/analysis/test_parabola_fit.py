"""An optimum is claimed where it is known to lie, and nowhere else."""

import numpy as np
import pytest

from analysis.comparison.parabola_fit import Parabola, UnclearOptimum, find_optimum

X = np.array([-3.5, -3.0, -2.5, -2.0, -1.5, -1.0])


def bowl(x: np.ndarray, *, at: float = -2.4) -> np.ndarray:
    loss: np.ndarray = 0.7 * (x - at) ** 2 + 1.5
    return loss


def test_a_parabola_is_found_again_from_the_values_around_the_best() -> None:
    found = find_optimum(X, np.where(X == -1.0, 40.0, bowl(X)), noise=0.01)  # what diverged lies further away
    assert isinstance(found, Parabola)
    assert found[:5] == pytest.approx((0.7, 2 * 0.7 * 2.4, 0.7 * 2.4**2 + 1.5, -2.4, 1.5))
    assert (found.ends, found.n_values, found.n_runs) == ((-3.5, -1.5), 5, 5)
    assert found(np.array([-2.4, -1.4])) == pytest.approx([1.5, 2.2])


@pytest.mark.parametrize(
    ("loss", "why"),
    [
        (bowl(X, at=-5), UnclearOptimum.EDGE),
        (bowl(X, at=0), UnclearOptimum.EDGE),
        (-bowl(X), UnclearOptimum.EDGE),
        (np.array([2.001, 2.0, 2.003, 2.001, 2.002, 2.001]), UnclearOptimum.NOISE),
    ],
)
def test_elsewhere_none_is_claimed(loss: np.ndarray, why: UnclearOptimum) -> None:
    assert find_optimum(X, loss, noise=0.01) is why
    assert find_optimum(X, loss, noise=None) is why


def test_three_values_leave_nothing_over() -> None:
    assert find_optimum(X[1:4], bowl(X[1:4]), noise=0.01) is UnclearOptimum.FEW
    assert find_optimum(X[1:5], bowl(X[1:5]), noise=0.01, n_seeds=2) is UnclearOptimum.FEW


def test_an_end_that_diverged_does_not_pull_the_optimum_below_what_was_measured() -> None:
    for end in (2.5, 4.0, 8.0, 50.0):
        for loss in ([2.56, 2.52, 2.51, 2.53, end], [2.6, 2.52, 2.51, end], [end, 2.51, 2.52, 2.56]):
            x = np.arange(len(loss), dtype=float)
            for noise in (0.005, None):
                found = find_optimum(x, np.array(loss), noise=noise)
                assert not isinstance(found, Parabola) or found.loss >= 2.51 - 0.02


def test_an_optimum_between_values_is_no_deeper_below_them_than_the_noise() -> None:
    x, loss = np.arange(4.0), np.array([3.0, 2.5, 2.5, 3.0])  # whose parabola is lowest at 2.4375
    assert find_optimum(x, loss, noise=0.01) is UnclearOptimum.NOISE
    found = find_optimum(x, loss, noise=0.1)
    assert isinstance(found, Parabola)
    assert (found.at, found.loss) == pytest.approx((1.5, 2.4375))


def test_losses_without_a_trend_seldom_have_an_optimum() -> None:
    """Curvature at 5 %, on the upper side alone, and the best inside."""
    draws = np.random.default_rng(0)
    claimed = sum(isinstance(find_optimum(X, draws.normal(size=6), noise=1.0), Parabola) for _ in range(1000))
    assert claimed < 50
