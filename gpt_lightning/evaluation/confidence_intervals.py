"""95 % confidence intervals of proportions and ratios."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

Z = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""


@dataclass(frozen=True)
class Estimate:
    """A metric with its 95 % confidence interval [low, high], from n examples."""

    value: float
    low: float
    high: float
    n: int

    def through(self, monotone: Callable[[float], float]) -> "Estimate":
        """Apply an increasing function to the value and both ends of the interval."""
        return replace(self, value=monotone(self.value), low=monotone(self.low), high=monotone(self.high))


def proportion_interval(hits: int, n: int) -> Estimate:
    """Estimate a proportion with Wilson's interval (1927), which stays within [0, 1] and is valid for small n.

    Args:
        hits: Number of independent examples that are successes.
        n: Number of independent examples.

    Returns:
        hits / n with its interval.

    Raises:
        ValueError: n is less than 1.
    """
    if n < 1:
        raise ValueError(f"n is {n}: it must be at least 1, because a proportion needs examples.")
    share = hits / n
    centre = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    return Estimate(share, min(share, centre - half), max(share, centre + half), n)


def ratio_interval(numerators: Sequence[float] | np.ndarray, denominators: Sequence[float] | np.ndarray) -> Estimate:
    """Estimate sum(numerators) / sum(denominators) over independent examples of unequal sizes, by linearisation
    (Cochran, 1977).

    Args:
        numerators: (examples,)
        denominators: (examples,)

    Returns:
        The ratio with its interval. For a single example the interval is infinite.

    Raises:
        ValueError: The sum of the denominators is not positive.
    """
    above, below = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    total = float(below.sum())
    if not total > 0:
        raise ValueError(
            "no token is scored, so there is nothing to average: use longer texts, or records with at least one "
            "assistant message."
        )
    value, n = float(above.sum()) / total, len(above)
    if n < 2:
        return Estimate(value, -math.inf, math.inf, n)
    half = Z * math.sqrt(float(np.square(above - value * below).sum()) * n / (n - 1)) / total
    return Estimate(value, value - half, value + half, n)
