"""Test whether the law predicts unseen runs, and better than a linear fit and the mean of all runs.

Each run is predicted from the others, without runs of the same mix: one mix at a time, or in folds if there are many.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import stats

_SAME_MIX = 3  # decimals to which the shares of repeats agree
CONFIDENCE = 0.95
Predictor = Callable[[np.ndarray], np.ndarray]
"""(samples, runs) number of times each run counts -> (samples, mixes, validation) losses predicted from each sample."""


@dataclass(frozen=True)
class CrossValidation:
    """Errors (predicted minus measured loss) of each run, predicted from the other runs."""

    losses: np.ndarray  # (runs, validation), measured, in nats
    law: np.ndarray  # (runs, validation), errors of the law; of the linear fit and the mean below
    linear: np.ndarray
    mean: np.ndarray
    n_folds: int
    leaves_one_out: bool

    @property
    def predicted(self) -> np.ndarray:
        """Losses predicted by the law, (runs, validation)."""
        return self.losses + self.law

    def rmse(self, errors: np.ndarray) -> np.ndarray:
        """Return the root mean square of errors per validation loss, (validation,), in nats."""
        root: np.ndarray = np.sqrt((errors**2).mean(axis=0))
        return root

    def r2(self, errors: np.ndarray) -> np.ndarray:
        """Return R² per validation loss, (validation,), the explained share of the variance; 0 or less: none."""
        return r_squared(self.losses + errors, self.losses)

    def gain_over(self, errors: np.ndarray) -> "ErrorReduction":
        """Return by how much the law's errors are smaller than others."""
        return ErrorReduction.of(errors, self.law, self.losses.std(axis=0))

    @cached_property
    def beats_mean(self) -> bool:
        """Whether the law is significantly better than the mean, so that the mix matters."""
        return self.gain_over(self.mean).is_clear

    @cached_property
    def beats_linear(self) -> bool:
        """Whether the law is significantly better than a linear fit."""
        return self.gain_over(self.linear).is_clear


@dataclass(frozen=True)
class ErrorReduction:
    """By how much the errors of one predictor are smaller than those of another."""

    share: float
    """Relative reduction of the mean absolute error, in units of each loss's spread; negative: larger errors."""
    p_value: float
    """P-value of a one-sided paired t-test over the runs."""

    @property
    def is_clear(self) -> bool:
        """Whether the reduction is significant at `CONFIDENCE`."""
        return self.p_value < 1 - CONFIDENCE

    @staticmethod
    def of(theirs: np.ndarray, ours: np.ndarray, spread: np.ndarray) -> "ErrorReduction":
        """Compare errors, (runs, validation); `spread` is the standard deviation of each loss, (validation,)."""
        spread = np.where(spread > 0, spread, 1.0)
        others, mine = ((np.abs(errors) / spread).mean(axis=1) for errors in (theirs, ours))  # (runs,)
        gained = others - mine
        if len(gained) < 2 or not gained.std() > 0:
            return ErrorReduction(0.0, 1.0)
        t = gained.mean() / (gained.std(ddof=1) / np.sqrt(len(gained)))
        return ErrorReduction(float(gained.mean() / others.mean()), float(stats.t.sf(t, len(gained) - 1)))


def cross_validate(ratios: np.ndarray, losses: np.ndarray, law: Predictor, *, most_folds: int) -> CrossValidation:
    """Predict every run from the others.

    Args:
        ratios: (runs, sources), shares.
        losses: (runs, validation), in nats.
        law: Fits the law to samples, and predicts all runs.
        most_folds: Maximum number of folds; with fewer mixes, each mix is a fold.
    """
    folds = split_folds(ratios, most=most_folds)
    n_folds = int(folds.max()) + 1
    samples = predict_left_out(folds)
    own = folds, np.arange(len(ratios))  # the prediction of each run by the sample without it
    linear = np.array([_linear(ratios[sample > 0], losses[sample > 0], ratios) for sample in samples])
    mean = samples @ losses / samples.sum(axis=1, keepdims=True)
    return CrossValidation(
        losses=losses,
        law=law(samples)[own] - losses,
        linear=linear[own] - losses,
        mean=mean[folds] - losses,
        n_folds=n_folds,
        leaves_one_out=n_folds == len(distinct_mixes(ratios)),
    )


def split_folds(ratios: np.ndarray, *, most: int) -> np.ndarray:
    """Return the fold of each run, (runs,). Repeats of a mix are in the same fold, so that none predicts the other."""
    mixes = distinct_mixes(ratios)
    order = np.random.default_rng(0).permutation(len(mixes))
    folds = np.empty(len(ratios), dtype=int)
    for n, runs in enumerate(mixes):
        folds[runs] = order[n] % most
    return folds


def predict_left_out(folds: np.ndarray) -> np.ndarray:
    """Return (folds, runs): 0 for the runs of the fold, 1 for the others."""
    return (np.arange(folds.max() + 1)[:, None] != folds).astype(float)


def distinct_mixes(ratios: np.ndarray) -> list[np.ndarray]:
    """Return the indices of the runs of each mix."""
    _, of_run = np.unique(ratios.round(_SAME_MIX), axis=0, return_inverse=True)
    return [np.flatnonzero(of_run == n) for n in range(of_run.max() + 1)]


def noise_between_repeats(ratios: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the standard deviation between repeats of a mix, (validation,), and the degrees of freedom, maybe 0."""
    repeated = [losses[runs] for runs in distinct_mixes(ratios) if len(runs) > 1]
    degrees = sum(len(values) - 1 for values in repeated)
    squares = sum((((values - values.mean(axis=0)) ** 2).sum(axis=0) for values in repeated), np.zeros(losses.shape[1]))
    return np.sqrt(squares / max(degrees, 1)), degrees


def r_squared(predicted: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Return R² per validation loss, (validation,), from (runs, validation)."""
    total = ((measured - measured.mean(axis=0)) ** 2).sum(axis=0)
    left = ((predicted - measured) ** 2).sum(axis=0)
    return 1 - left / np.where(total > 0, total, np.nan)


def rank_correlation(predicted: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Return Spearman's rank correlation per validation loss, (validation,), from (runs, validation)."""
    ranks = [stats.rankdata(values, axis=0) for values in (predicted, measured)]
    a, b = (rank - rank.mean(axis=0) for rank in ranks)
    correlation: np.ndarray = (a * b).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return correlation


def linear_fit(ratios: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """Return the least-squares loss of each source alone, (sources, validation)."""
    return np.linalg.lstsq(ratios, losses, rcond=None)[0]


def _linear(ratios: np.ndarray, losses: np.ndarray, asked: np.ndarray) -> np.ndarray:
    predicted: np.ndarray = asked @ linear_fit(ratios, losses)
    return predicted
