"""Is a difference larger than what another seed makes? Student's t-test with a deviation pooled over all repeats."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Noise:
    """How far runs scatter that differ in nothing but their seed."""

    deviation: float
    """Standard deviation of one run, in the metric's unit."""
    degrees: int
    """Degrees of freedom: runs less the groups of repeats that they form."""

    def p_value(self, difference: float, n_a: int, n_b: int) -> float:
        """How probable a difference of means of `n_a` and `n_b` runs this far from 0 is, on either side, if there is none."""
        error = self.deviation * math.sqrt(1 / n_a + 1 / n_b)
        if error == 0:
            return 0.0 if difference else 1.0
        return t_two_sided(difference / error, self.degrees)

    def exceeded_by(self, difference: float, n_a: int, n_b: int) -> bool:
        """Whether the difference of two means is significant at `CONFIDENCE`."""
        return self.p_value(difference, n_a, n_b) < 1 - CONFIDENCE

    def least_difference(self, n_a: int, n_b: int) -> float:
        """The smallest difference of two means that is significant at `CONFIDENCE`."""
        return critical_t(self.degrees) * self.deviation * math.sqrt(1 / n_a + 1 / n_b)


def pooled_noise(groups: Iterable[Sequence[float]]) -> Noise | None:
    """From the values of each group of repeats, as if all groups scattered alike; None: there are no repeats."""
    squares, degrees = 0.0, 0
    for values in groups:
        mean = math.fsum(values) / len(values)
        squares += math.fsum((value - mean) ** 2 for value in values)
        degrees += len(values) - 1
    return Noise(math.sqrt(squares / degrees), degrees) if degrees else None


def t_two_sided(t: float, degrees: int) -> float:
    """P(|T| > |t|) of Student's t with a whole number of degrees of freedom, by its finite sum (Abramowitz & Stegun 26.7.3-4)."""
    if math.isinf(t):
        return 0.0
    angle = math.atan(abs(t) / math.sqrt(degrees))
    sine, square = math.sin(angle), math.cos(angle) ** 2
    odd = degrees % 2
    term, total = math.cos(angle) if odd else 1.0, 0.0
    for n in range(odd, degrees - 1, 2):
        total += term
        term *= square * (n + 1) / (n + 2)
    inside = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return max(0.0, 1 - inside)


def critical_t(degrees: int, *, confidence: float = CONFIDENCE) -> float:
    """The t that is exceeded on either side with probability 1 - confidence."""
    low, high = 0.0, 1.0
    while t_two_sided(high, degrees) > 1 - confidence:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if t_two_sided(middle, degrees) > 1 - confidence else (low, middle)
    return high
