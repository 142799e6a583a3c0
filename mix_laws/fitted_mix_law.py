"""The mix law L_i(r) = c_i + exp(t_i . r), fitted, with its uncertainty (Data Mixing Laws, arXiv:2403.16952).

The exponent uses the shares, as published, or the square roots of the shares if these predict left-out runs
significantly better. Square roots express that the first percent of a source has more effect than the next.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import stats

from mix_laws.cross_validation import (
    CONFIDENCE,
    CrossValidation,
    ErrorReduction,
    cross_validate,
    noise_between_repeats,
    predict_left_out,
    split_folds,
)
from mix_laws.parameter_fit import LawForm, fit_samples, predict_losses

_POWERS = (1.0, 0.5)
_EVIDENCE = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)  # in runs, see `LawForm.evidence`
_SAMPLES = 200  # number of bootstrap samples
_FEW = 30  # up to this number of runs, the form is chosen by leave-one-out; above, by ten folds
_MOST_FOLDS = 64
_TAIL = (1 + CONFIDENCE) / 2
_ENDS = 1e-2  # tolerance for the sum of the shares of a mix


@dataclass(frozen=True)
class MixLaw:
    """A fitted law, which predicts the validation losses after training on a mix.

    The law is valid for runs with the same model, length and schedule as the fitted runs.
    """

    form: LawForm
    parameters: np.ndarray  # (validation, 1 + k): c, then t, then with square roots a constant of the exponent
    ratios: np.ndarray  # (runs, sources), mixes of the runs it was fitted to
    losses: np.ndarray  # (runs, validation), in nats
    of_one: bool
    """Whether losses were given as (runs,), so that predictions are (mixes,)."""

    @property
    def c(self) -> np.ndarray:
        """(validation,), in nats: the lower limit of the predicted loss."""
        return self.parameters[:, 0]

    @property
    def t(self) -> np.ndarray:
        """(validation, sources), coefficients in the exponent: the lower, the more the source reduces the loss."""
        return self.parameters[:, 1 : 1 + self.ratios.shape[1]]

    def predict(self, ratios: np.ndarray) -> np.ndarray:
        """Predict losses.

        Args:
            ratios: (mixes, sources), shares of each mix.

        Returns:
            (mixes, validation) in nats; (mixes,) if the law was fitted to losses of shape (runs,).

        Raises:
            ValueError: These are not mixes of the law's sources.
        """
        losses = self._at(self.parameters, ratios).T
        return losses[:, 0] if self.of_one else losses

    def draws(self, ratios: np.ndarray) -> np.ndarray:
        """Return predictions of bootstrap laws, (draws, mixes, validation), in nats.

        Each law weights the runs randomly (Bayesian bootstrap), so that no sample lacks all runs of a source. The
        spread around the fitted law is enlarged to account for the degrees of freedom that the law's parameters use.
        """
        centre = self._at(self.parameters, ratios).T
        n, k = len(self.ratios), self.parameters.shape[1]
        free = max(n - k, n / 4)
        larger = np.sqrt(n / free) * stats.t.ppf(_TAIL, free) / stats.norm.ppf(_TAIL)
        draws: np.ndarray = centre + larger * (self._at(self._drawn, ratios).swapaxes(1, 2) - centre)
        return draws

    def interval(self, ratios: np.ndarray, *, confidence: float = CONFIDENCE) -> tuple[np.ndarray, np.ndarray]:
        """Return the interval of the law itself: (lower, upper) ends, each with the shape of `predict`."""
        return self._ends(self.draws(ratios), confidence)

    def run_interval(self, ratios: np.ndarray, *, confidence: float = CONFIDENCE) -> tuple[np.ndarray, np.ndarray]:
        """Return the interval of a run with the mix: as `interval`, plus the errors of left-out runs."""
        draws = self.draws(ratios)
        of_run = np.random.default_rng(1).integers(len(self.losses), size=draws.shape[:2])
        return self._ends(draws - self.check.law[of_run], confidence)

    @cached_property
    def t_interval(self) -> tuple[np.ndarray, np.ndarray]:
        """(lower, upper) ends of `t`, each (validation, sources)."""
        drawn = self._drawn[:, :, 1 : 1 + self.ratios.shape[1]]
        low, high = _quantiles(drawn, CONFIDENCE)
        return low, high

    @cached_property
    def check(self) -> CrossValidation:
        """Cross-validation: every run predicted from the others by the law, a linear fit and the mean."""

        def refitted(samples: np.ndarray) -> np.ndarray:
            fitted = fit_samples(self.ratios, self.losses, samples, self.form, start=self.parameters)
            return predict_losses(fitted, self.form.features(self.ratios)).swapaxes(1, 2)

        return cross_validate(self.ratios, self.losses, refitted, most_folds=_MOST_FOLDS)

    @cached_property
    def noise(self) -> tuple[np.ndarray, int]:
        """Standard deviation between repeats of a mix, (validation,), and the degrees of freedom; 0: unknown."""
        return noise_between_repeats(self.ratios, self.losses)

    @cached_property
    def _drawn(self) -> np.ndarray:
        """(draws, validation, 1 + k)."""
        samples = np.random.default_rng(0).exponential(size=(_SAMPLES, len(self.ratios)))
        return fit_samples(self.ratios, self.losses, samples, self.form, start=self.parameters)

    def _at(self, parameters: np.ndarray, ratios: np.ndarray) -> np.ndarray:
        mixes = _mixes(ratios)
        if mixes.shape[1] != self.ratios.shape[1]:
            raise ValueError(
                f"ratios has {mixes.shape[1]} sources: it must have {self.ratios.shape[1]}, as the mixes the law was "
                "fitted to."
            )
        return predict_losses(parameters, self.form.features(mixes))

    def _ends(self, draws: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
        low, high = _quantiles(draws, confidence)
        return (low[:, 0], high[:, 0]) if self.of_one else (low, high)


def fit_mix_law(ratios: np.ndarray, losses: np.ndarray, *, powers: Sequence[float] = _POWERS) -> MixLaw:
    """Fit a law to runs.

    Shares or square roots, and the strength of regularisation, are chosen by the errors on left-out runs. The published
    form, with shares, is used unless another is significantly better.

    Args:
        ratios: (runs, sources), the shares that each run drew; each row sums to 1.
        losses: (runs,) or (runs, validation), in nats.
        powers: Powers of the shares to choose from; (1.0,) allows only the published law.

    Raises:
        ValueError: The shapes do not match, a number is not finite, a row is not a mix, or there are fewer than 3 runs.
    """
    ratios = _mixes(ratios)
    given = np.asarray(losses, dtype=float)
    if given.ndim not in (1, 2) or len(given) != len(ratios):
        raise ValueError(
            f"losses has the shape {given.shape}: its first dimension must be {len(ratios)}, the number of runs in "
            "ratios."
        )
    table = given.reshape(len(given), -1)
    if not np.isfinite(table).all():
        raise ValueError(
            f"the loss of run {int(np.argwhere(~np.isfinite(table))[0][0])} is not finite: exclude this run."
        )
    if (table < 0).any():
        raise ValueError(
            f"the loss of run {int(np.argwhere(table < 0)[0][0])} is negative: losses must be in nats, 0 or more."
        )
    if len(ratios) < 3:
        raise ValueError(
            f"there are {len(ratios)} runs: a law needs at least 3, and at least 2 per source to be meaningful."
        )
    form = _choose(ratios, table, powers)
    parameters = fit_samples(ratios, table, np.ones((1, len(ratios))), form)[0]
    return MixLaw(form, parameters, ratios, table, of_one=given.ndim == 1)


def _choose(ratios: np.ndarray, losses: np.ndarray, powers: Sequence[float]) -> LawForm:
    """Choose the form with the smallest errors on left-out runs; a later power only if it is significantly better."""
    folds = split_folds(ratios, most=len(ratios) if len(ratios) <= _FEW else 10)
    samples, own = predict_left_out(folds), (folds, np.arange(len(ratios)))
    spread = np.where(losses.std(axis=0) > 0, losses.std(axis=0), 1.0)
    best: list[tuple[LawForm, np.ndarray]] = []
    for power in powers:
        errors: dict[LawForm, np.ndarray] = {}
        start = None
        for evidence in _EVIDENCE[::-1]:
            form = LawForm(power, evidence)
            start = fit_samples(ratios, losses, np.ones((1, len(ratios))), form, start=start)[0]
            fitted = fit_samples(ratios, losses, samples, form, start=start)
            errors[form] = predict_losses(fitted, form.features(ratios)).swapaxes(1, 2)[own] - losses
        best.append(min(errors.items(), key=lambda of: float((np.abs(of[1]) / spread).mean())))
    chosen, its_errors = best[0]
    for form, other in best[1:]:
        if ErrorReduction.of(its_errors, other, spread).is_clear:
            chosen, its_errors = form, other
    return chosen


def _mixes(ratios: np.ndarray) -> np.ndarray:
    table = np.asarray(ratios, dtype=float)
    if table.ndim != 2 or not table.size:
        raise ValueError(
            f"ratios has the shape {table.shape}: it must be a table with one row per mix and one column per source."
        )
    wrong = ~np.isfinite(table).all(axis=1) | (table < 0).any(axis=1) | (np.abs(table.sum(axis=1) - 1) > _ENDS)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ValueError(f"row {row} of ratios sums to {table[row].sum():.4g}: shares must be 0 or more and sum to 1.")
    return table / table.sum(axis=1, keepdims=True)


def _quantiles(draws: np.ndarray, confidence: float) -> np.ndarray:
    """Return the ends of the central interval of draws, over their first axis."""
    tail = (1 - confidence) / 2
    ends: np.ndarray = np.quantile(draws, [tail, 1 - tail], axis=0)
    return ends
