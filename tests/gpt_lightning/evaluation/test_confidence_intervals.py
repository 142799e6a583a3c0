"""Intervals cover what they say that they cover."""

import math

import numpy as np
import pytest

from gpt_lightning.evaluation import Estimate, proportion_interval, ratio_interval
from gpt_lightning.evaluation.sliding_window_perplexity import mean_over_sources


@pytest.mark.parametrize(("share", "n"), [(0.25, 60), (0.25, 1000), (0.02, 150), (0.5, 12)])
def test_an_interval_of_a_share_covers_it(share: float, n: int) -> None:
    hits = np.random.default_rng(1).binomial(n, share, size=4000)
    covered = [(e := proportion_interval(int(k), n)).low <= share <= e.high for k in hits]
    assert 0.925 < np.mean(covered) < 0.99


def test_wilsons_own_figures() -> None:
    """As in Newcombe (1998), table I: 81 of 263, and 0 of 20."""
    some, none = proportion_interval(81, 263), proportion_interval(0, 20)
    assert (some.low, some.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert (none.low, none.high) == pytest.approx((0.0, 0.1611), abs=5e-5)
    with pytest.raises(ValueError, match="n is 0: it must be at least 1"):
        proportion_interval(0, 0)


def test_an_interval_of_a_ratio_covers_it() -> None:
    """Windows of unequal sizes, whose nats scatter with their size."""
    draw = np.random.default_rng(2)
    covered = []
    for _ in range(2000):
        sizes = draw.integers(20, 200, size=80)
        estimate = ratio_interval(sizes * draw.normal(3.0, 0.4, size=80), sizes)
        covered.append(estimate.low <= 3.0 <= estimate.high)
    assert 0.925 < np.mean(covered) < 0.965


def test_what_is_not_known_is_not_claimed() -> None:
    assert ratio_interval([6.0], [2.0]) == Estimate(3.0, -math.inf, math.inf, 1)
    with pytest.raises(ValueError, match="no token is scored"):
        ratio_interval([0.0], [0.0])


def test_means_and_functions_of_figures() -> None:
    mean = mean_over_sources([Estimate(2.0, 1.7, 2.3, 10), Estimate(4.0, 3.6, 4.4, 20)])
    assert mean == Estimate(3.0, pytest.approx(2.75), pytest.approx(3.25), 30)  # half of (0.3, 0.4), as (3, 4) to 5
    assert Estimate(0.0, -1.0, 1.0, 5).through(math.exp) == Estimate(1.0, math.exp(-1), math.e, 5)
