"""One metric of one candidate, and the result of the significance test."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from analysis.comparison.tukey_test import PairDifference


class Significance(Enum):
    """Result of the test for one candidate and one metric."""

    BEST = auto()  # all others are significantly worse
    TIED = auto()  # tied for best: the lowest, or not distinguishable from it, like at least one other
    LOWEST = auto()  # the lowest; significance is unknown, or there is no other candidate
    WORSE = auto()  # significantly worse than the lowest
    UNKNOWN = auto()  # not the lowest; significance is unknown
    NOT_FINITE = auto()


@dataclass(frozen=True)
class MetricResult:
    """One metric of one candidate."""

    mean: float
    """Mean over the candidate's runs."""
    deviation: float | None
    """Standard deviation over the candidate's runs; None for a single run or a value that is not finite."""
    difference: float
    """Difference to the lowest, see `Comparison.column`; not finite if the mean is not finite, NaN if the
    difference cannot be estimated."""
    lowest: bool
    standing: Significance
    chance: PairDifference | None
    """The test of the difference; None if this is the lowest or the mean is not finite."""

    @property
    def p_value(self) -> float | None:
        """p-value of the difference; None if the noise is unknown or there is nothing to compare."""
        return None if self.chance is None else self.chance.p_value

    @property
    def beyond_noise(self) -> bool | None:
        """Whether the difference is significant; None in the same cases as `p_value`."""
        return None if self.chance is None else self.chance.beyond_noise


SIGNIFICANCE_BY_TEST = {True: Significance.WORSE, False: Significance.TIED, None: Significance.UNKNOWN}
"""Significance of a candidate that is not the lowest, by the result of the test."""


def significance_of_lowest(to_others: Sequence[PairDifference]) -> Significance:
    """Significance of the lowest candidate, from the differences of the other candidates to the lowest.

    Args:
        to_others: differences of the other candidates to the lowest.
    """
    beyond = {difference.beyond_noise for difference in to_others}
    if False in beyond:
        return Significance.TIED
    return Significance.BEST if beyond == {True} else Significance.LOWEST
