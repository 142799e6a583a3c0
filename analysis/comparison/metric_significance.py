"""One metric of one candidate, and what the test says of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from analysis.comparison.tukey_test import PairDifference


class Significance(Enum):
    """What the test says of a candidate and one metric."""

    BEST = auto()  # all others are worse
    TIED = auto()  # for best: it is the lowest or cannot be told from the lowest, and so is another
    LOWEST = auto()  # and whether that is more than chance is unknown, or there is no other one
    WORSE = auto()  # than the lowest, beyond the noise
    UNKNOWN = auto()  # whether it is worse
    NOT_FINITE = auto()


@dataclass(frozen=True)
class MetricResult:
    """One metric of one candidate."""

    mean: float
    """Over its runs."""
    deviation: float | None
    """Standard deviation of its runs; None: it has one alone, or one that is not finite."""
    difference: float
    """To the lowest, see `Comparison.column`; not finite where the mean is not, NaN where it cannot be told."""
    lowest: bool
    standing: Significance
    chance: PairDifference | None
    """Of the metric that is tested; None: this is the lowest, or the mean is not finite."""

    @property
    def p_value(self) -> float | None:
        """Of the difference; None: the noise is unknown, or there is nothing to compare."""
        return None if self.chance is None else self.chance.p_value

    @property
    def beyond_noise(self) -> bool | None:
        """Whether the difference is more than chance; None as `p_value`."""
        return None if self.chance is None else self.chance.beyond_noise


SIGNIFICANCE_BY_TEST = {True: Significance.WORSE, False: Significance.TIED, None: Significance.UNKNOWN}
"""Of a candidate that is not the lowest, by whether its difference is beyond the noise."""


def significance_of_lowest(to_others: Sequence[PairDifference]) -> Significance:
    """Of the candidate with the lowest mean, by the differences of the others to it."""
    beyond = {difference.beyond_noise for difference in to_others}
    if False in beyond:
        return Significance.TIED
    return Significance.BEST if beyond == {True} else Significance.LOWEST
