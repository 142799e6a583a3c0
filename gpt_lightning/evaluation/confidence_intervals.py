"""How sure a figure is: 95 % intervals."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

Z = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""


@dataclass(frozen=True)
class Estimate:
    """A figure, its 95 % interval, and from how many examples it is."""

    value: float
    low: float
    high: float
    n: int

    def through(self, monotone: Callable[[float], float]) -> "Estimate":
        """The same of a growing function of the figure."""
        return replace(self, value=monotone(self.value), low=monotone(self.low), high=monotone(self.high))


def proportion_interval(hits: int, n: int) -> Estimate:
    """A share of `n` independent examples, with Wilson's interval (1927), which stays inside [0, 1] and holds for few.

    Raises:
        ValueError: there are no examples.
    """
    if n < 1:
        raise ValueError("a share of no examples is no number.")
    share = hits / n
    centre = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    return Estimate(share, min(share, centre - half), max(share, centre + half), n)


def ratio_interval(numerators: Sequence[float] | np.ndarray, denominators: Sequence[float] | np.ndarray) -> Estimate:
    """sum(numerators) / sum(denominators) over independent examples of unequal sizes, by linearisation (Cochran, 1977).

    Of a single example nothing is known of how sure it is: its interval is everything.

    Raises:
        ValueError: the denominators sum to nothing.
    """
    above, below = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    total = float(below.sum())
    if not total > 0:
        raise ValueError("there is nothing to divide by: no token is scored.")
    value, n = float(above.sum()) / total, len(above)
    if n < 2:
        return Estimate(value, -math.inf, math.inf, n)
    half = Z * math.sqrt(float(np.square(above - value * below).sum()) * n / (n - 1)) / total
    return Estimate(value, value - half, value + half, n)
