"""Is a difference larger than the noise between seeds? An additive model, and Tukey's test of all pairs at once.

loss of a run = effect of the setting + effect of the seed + residual     if settings share seeds
loss of a run = effect of the setting + residual                          otherwise

A seed decides the data order and the initial weights, so its effect on different settings is similar. The best of many
settings was selected because it looked best. Therefore a difference to the best setting is compared with the largest
difference between equal settings, the studentized range, and not with the difference of a single pair.
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

CONFIDENCE = 0.95
_ROUNDING = 1e-12  # relative to the values: smaller residuals are rounding errors
_UNEQUAL = 0.01  # significance level of Bartlett's test


@dataclass(frozen=True)
class PairDifference:
    """By how much one setting is higher than another, and the significance of this difference."""

    value: float
    """In the metric's unit; NaN if the settings share no seeds, not even through other settings."""
    in_errors: float | None
    """|value| in units of the studentized range; None if the noise is unknown or the pair cannot be compared."""
    settings: int  # number of settings in the comparison
    degrees: int  # of freedom

    @property
    def p_value(self) -> float | None:
        """Probability that any two of this many equal settings differ by this much."""
        if self.in_errors is None:
            return None
        from scipy import stats  # slow to import

        return float(stats.studentized_range.sf(self.in_errors, self.settings, self.degrees))

    @property
    def beyond_noise(self) -> bool | None:
        """Whether the difference is significant at `CONFIDENCE`, for all pairs together."""
        return None if self.in_errors is None else self.in_errors > _critical(self.settings, self.degrees)


@dataclass(frozen=True)
class AdditiveNoiseModel:
    """Least-squares model of the runs' values: effects of settings and seeds.

    Args:
        values: values of the runs, finite.
        settings: index of each run's setting, from 0 without gaps.
        seeds: seeds of the runs.
    """

    values: Sequence[float]
    settings: Sequence[int]
    seeds: Sequence[Hashable]

    @cached_property
    def paired(self) -> bool:
        """Whether the model has effects of seeds: at least two seeds occur in at least two settings each, and a degree
        of freedom is left. This depends on the design only, never on the values."""
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

    @cached_property
    def degrees(self) -> int:
        """Degrees of freedom: number of runs minus number of fitted effects; 0 without repeats."""
        return len(self.values) - int(np.linalg.matrix_rank(self._model))

    @cached_property
    def deviation(self) -> float | None:
        """Standard deviation of the residuals; None without repeats, or if all repeats are bit-identical."""
        if not self.degrees:
            return None
        relative = math.sqrt(float(np.square(self.residuals / self._scale).sum()) / self.degrees)
        return relative * self._scale if relative > _ROUNDING else None

    @cached_property
    def residuals(self) -> np.ndarray:
        """(runs,): the part of the values that neither setting nor seed explains."""
        return self._scale * (np.asarray(self.values) / self._scale - self._model @ self._effects)

    @cached_property
    def connected(self) -> bool:
        """Whether all seeds, and all settings, can be compared with each other, possibly through others."""
        return self.paired and int(np.linalg.matrix_rank(self._model)) == self.n_settings + self.n_seeds - 1

    @cached_property
    def of_seeds(self) -> np.ndarray:
        """(runs,): the effect of each run's seed, centred over the runs; for connected designs."""
        effects = self._scale * (self._model[:, self.n_settings :] @ self._effects[self.n_settings :])
        return effects - effects.mean()

    def difference(self, a: int, b: int) -> PairDifference:
        """By how much setting `a` is higher than setting `b`, comparing runs of the same seed.

        In balanced designs this is the difference of the settings' means.

        Args:
            a: index of a setting.
            b: index of another setting.
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
        """The smallest difference between two settings that would be significant if each had `n` runs with the same seeds.

        None: unknown.

        Args:
            n: runs per setting.
        """
        if self.deviation is None or self.n_settings < 2:
            return None
        return _critical(self.n_settings, self.degrees) * self.deviation / math.sqrt(n)

    @cached_property
    def unequal_spread(self) -> bool:
        """Whether the variances of the settings differ so much that a common noise is wrong, by Bartlett's test."""
        groups = [self.residuals[np.equal(self.settings, setting)] / self._scale for setting in range(self.n_settings)]
        several = [group for group in groups if len(group) > 1 and np.ptp(group) > 0]
        from scipy import stats  # slow to import

        return len(several) > 1 and bool(stats.bartlett(*several).pvalue < _UNEQUAL)

    @cached_property
    def _model(self) -> np.ndarray:
        return self._design(paired=self.paired)

    @cached_property
    def _inverse(self) -> np.ndarray:
        """Pseudo-inverse of the design, (effects, runs): effects = inverse @ values."""
        return np.linalg.pinv(self._model)

    @cached_property
    def _effects(self) -> np.ndarray:
        """Effects of settings and seeds, in units of the largest value, because squares of values might overflow."""
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
    """The critical value of the studentized range of equal settings, exceeded with probability 1 - `CONFIDENCE`."""
    from scipy import stats  # slow to import

    return float(stats.studentized_range.ppf(CONFIDENCE, settings, degrees))
