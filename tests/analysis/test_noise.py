"""The test of a difference against the noise between seeds."""

import math

import numpy as np
import pytest

from analysis.comparison.noise import Noise, critical_t, pooled_noise, t_two_sided

TABLE = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 10: 2.228, 21: 2.080, 30: 2.042, 120: 1.980}
"""Student's t, two-sided at 95 %, as printed in any statistics book."""


@pytest.mark.parametrize(("degrees", "t"), TABLE.items())
def test_the_critical_t_is_the_tables(degrees: int, t: float) -> None:
    assert critical_t(degrees) == pytest.approx(t, abs=5e-4)
    assert t_two_sided(critical_t(degrees), degrees) == pytest.approx(0.05)


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 7, 12])
def test_the_probability_is_the_integral_of_the_density(degrees: int) -> None:
    """Beyond t on either side: one less the integral between, by the trapezium rule."""
    scale = math.gamma((degrees + 1) / 2) / (math.sqrt(degrees * math.pi) * math.gamma(degrees / 2))
    for t in (0.0, 0.3, 1.0, 2.5, 6.0):
        x = np.linspace(-t, t, 20_001)
        density = scale * (1 + x**2 / degrees) ** (-(degrees + 1) / 2)
        assert t_two_sided(t, degrees) == pytest.approx(1 - np.trapezoid(density, x), abs=1e-7)
        assert t_two_sided(-t, degrees) == t_two_sided(t, degrees)


def test_the_noise_is_pooled_over_the_groups() -> None:
    """(0.5 + 0.5 + 2 + 0 + 2) / 3: squares about each group's own mean, over runs less groups."""
    noise = pooled_noise([[1.0, 2.0], [10.0, 12.0, 14.0], [7.0]])
    assert noise is not None
    assert noise.deviation == pytest.approx(math.sqrt((0.5 + 8) / 3))
    assert noise.degrees == 3


def test_without_repeats_there_is_no_noise() -> None:
    assert pooled_noise([[1.0], [2.0]]) is None
    assert pooled_noise([]) is None


def test_a_difference_is_significant_from_the_least_difference_on() -> None:
    noise = Noise(deviation=0.1, degrees=2)
    assert noise.least_difference(1, 1) == pytest.approx(4.3027 * 0.1 * math.sqrt(2), rel=1e-4)
    assert noise.least_difference(4, 4) == pytest.approx(noise.least_difference(1, 1) / 2)
    for sizes in ((1, 1), (1, 3), (2, 2)):
        least = noise.least_difference(*sizes)
        assert noise.exceeded_by(least * 1.001, *sizes)
        assert noise.exceeded_by(-least * 1.001, *sizes)
        assert not noise.exceeded_by(least * 0.999, *sizes)


def test_runs_that_repeat_to_the_bit_leave_no_doubt() -> None:
    noise = pooled_noise([[3.0, 3.0]])
    assert noise is not None
    assert noise.p_value(0.0, 1, 2) == 1.0
    assert noise.p_value(0.001, 1, 2) == 0.0


def test_a_twentieth_of_equal_pairs_is_called_different() -> None:
    """What 95 % means, by drawing: three groups of three repeats, and the first two single runs compared."""
    draws = np.random.default_rng(0).normal(size=(4000, 3, 3))
    called = 0
    for groups in draws:
        noise = pooled_noise(groups.tolist())
        assert noise is not None
        called += noise.exceeded_by(groups[0].mean() - groups[1].mean(), 3, 3)
    assert called / len(draws) == pytest.approx(0.05, abs=0.01)
