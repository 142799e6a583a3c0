"""Is a difference larger than what another seed makes? An additive model, and Tukey's test of all pairs at once.

loss of a run = its setting + its seed + residual     where settings share seeds: the seed decides data order and first weights,
                                                      so runs of one seed are good or bad together
loss of a run = its setting + residual                where they do not

The best of many was picked because it looked best, so a difference to it is compared with the largest difference that equal
settings would show, the studentized range, and not with that of one pair.
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

CONFIDENCE = 0.95
_ROUNDING = 1e-12  # relative to the values: residuals below it are no scatter
_UNEQUAL = 0.01  # of Bartlett's test


@dataclass(frozen=True)
class PairDifference:
    """How much higher one setting is than another, and what chance would make of it."""

    value: float
    """In the metric's unit; NaN where the settings share no seeds, not even by way of others."""
    in_errors: float | None
    """|value| in units of the studentized range; None: the noise is unknown, or nothing can be said of this pair."""
    settings: int  # that are compared with each other
    degrees: int

    @property
    def p_value(self) -> float | None:
        """How probable it is that of so many equal settings any two are this far apart."""
        if self.in_errors is None:
            return None
        from scipy import stats  # which takes a second

        return float(stats.studentized_range.sf(self.in_errors, self.settings, self.degrees))

    @property
    def beyond_noise(self) -> bool | None:
        """Whether it is significant at `CONFIDENCE`, all pairs together."""
        return None if self.in_errors is None else self.in_errors > _critical(self.settings, self.degrees)


@dataclass(frozen=True)
class AdditiveNoiseModel:
    """What the values of runs say of their settings, by least squares.

    Args:
        values: of each run, finite.
        settings: of each run, numbered from 0 without a gap.
        seeds: of each run.
    """

    values: Sequence[float]
    settings: Sequence[int]
    seeds: Sequence[Hashable]

    @cached_property
    def paired(self) -> bool:
        """Whether seeds have effects of their own: two of them or more occur in two settings or more each, and a degree of
        freedom is left. The design alone decides, never the values."""
        together = defaultdict(set)
        for setting, seed in zip(self.settings, self.seeds, strict=True):
            together[seed].add(setting)
        shared = sum(len(settings) > 1 for settings in together.values()) > 1
        return shared and len(self.values) > int(np.linalg.matrix_rank(self._design(paired=True)))

    @property
    def n_settings(self) -> int:
        return len(set(self.settings))

    @property
    def n_seeds(self) -> int:
        return len(set(self.seeds))

    @property
    def degrees(self) -> int:
        """Of freedom: runs less what was fitted to them; 0: there are no repeats."""
        return len(self.values) - int(np.linalg.matrix_rank(self._model))

    @cached_property
    def deviation(self) -> float | None:
        """Standard deviation of the residual of one run; None: no repeats, or repeats that are equal to the bit."""
        if not self.degrees:
            return None
        relative = math.sqrt(float(np.square(self.residuals / self._scale).sum()) / self.degrees)
        return relative * self._scale if relative > _ROUNDING else None

    @cached_property
    def residuals(self) -> np.ndarray:
        """(runs,): what neither setting nor seed explains."""
        return self._scale * (np.asarray(self.values) / self._scale - self._model @ self._effects)

    @cached_property
    def connected(self) -> bool:
        """Whether every two seeds, and every two settings, can be compared with each other, be it by way of others."""
        return self.paired and int(np.linalg.matrix_rank(self._model)) == self.n_settings + self.n_seeds - 1

    @cached_property
    def of_seeds(self) -> np.ndarray:
        """(runs,): the effect of each run's seed, about their mean over the runs; of a design that is connected."""
        effects = self._scale * (self._model[:, self.n_settings :] @ self._effects[self.n_settings :])
        return effects - effects.mean()

    def difference(self, a: int, b: int) -> PairDifference:
        """How much higher setting `a` is than setting `b`, runs of the same seed being compared with each other.

        In balanced designs this is the difference of the means of their runs.
        """
        contrast = np.zeros(self._model.shape[1])
        contrast[a] += 1
        contrast[b] -= 1
        estimable = np.allclose(contrast @ self._inverse @ self._model, contrast, atol=1e-8)
        value = float(contrast @ self._effects) * self._scale if estimable else math.nan
        in_errors = None
        if estimable and a != b and self.deviation is not None:
            error = self.deviation * math.sqrt(float(np.square(contrast @ self._inverse).sum()) / 2)
            in_errors = abs(value) / error
        return PairDifference(value, in_errors, self.n_settings, self.degrees)

    def least_difference(self, n: int) -> float | None:
        """The smallest significant difference of two settings with `n` runs each, of the same seeds."""
        if self.deviation is None or self.n_settings < 2:
            return None
        return _critical(self.n_settings, self.degrees) * self.deviation / math.sqrt(n)

    @cached_property
    def unequal_spread(self) -> bool:
        """Whether the settings scatter so unequally that one noise for all of them is wrong, by Bartlett's test."""
        groups = [self.residuals[np.equal(self.settings, setting)] / self._scale for setting in range(self.n_settings)]
        several = [group for group in groups if len(group) > 1 and np.ptp(group) > 0]
        from scipy import stats  # which takes a second

        return len(several) > 1 and bool(stats.bartlett(*several).pvalue < _UNEQUAL)

    @cached_property
    def _model(self) -> np.ndarray:
        return self._design(paired=self.paired)

    @cached_property
    def _inverse(self) -> np.ndarray:
        """(effects, runs): the effects are this times the values, their covariance its square times the deviation's."""
        return np.linalg.pinv(self._model)

    @cached_property
    def _effects(self) -> np.ndarray:
        """Of each setting and seed, in units of the largest value, whose square may be more than a float can hold."""
        return self._inverse @ (np.asarray(self.values) / self._scale)

    @cached_property
    def _scale(self) -> float:
        return float(np.abs(self.values).max()) or 1.0

    def _design(self, *, paired: bool) -> np.ndarray:
        """(runs, settings and seeds): 1 where a run has the setting or the seed."""
        columns = [np.equal(self.settings, setting) for setting in range(self.n_settings)]
        if paired:
            order = {seed: n for n, seed in enumerate(dict.fromkeys(self.seeds))}
            of = np.array([order[seed] for seed in self.seeds])
            columns += [of == n for n in range(len(order))]
        return np.array(columns, dtype=float).reshape(len(columns), len(self.values)).T


@lru_cache(maxsize=1024)
def _critical(settings: int, degrees: int) -> float:
    """The studentized range of so many equal settings that is exceeded with probability 1 - `CONFIDENCE`."""
    from scipy import stats  # which takes a second

    return float(stats.studentized_range.ppf(CONFIDENCE, settings, degrees))
