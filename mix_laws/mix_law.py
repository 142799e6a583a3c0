"""The law itself: L_i(r) = c_i + exp(t_i . r), fitted, with how sure it is (Data Mixing Laws, arXiv:2403.16952).

Shares count in the exponent as they are, or by their square roots where the runs predict each other clearly better so: the
first percents of a source teach more than the next.
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
_EVIDENCE = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)  # runs
_SAMPLES = 200  # of the bootstrap
_FEW = 30  # runs: each is left out for itself where the form is chosen; of more, tenths
_MOST_FOLDS = 64
_TAIL = (1 + CONFIDENCE) / 2
_ENDS = 1e-2  # how far from 1 the shares of a mix may sum


@dataclass(frozen=True)
class MixLaw:
    """A fitted law: what a validation loss would be after training on a mix.

    It holds for runs like those that it was fitted to: their model, length and schedule.
    """

    form: LawForm
    parameters: np.ndarray  # (validation, 1 + k): c, then t, then for shares to a power the constant of the exponent
    ratios: np.ndarray  # (runs, sources), what it was fitted to
    losses: np.ndarray  # (runs, validation)
    of_one: bool
    """Whether losses were given as (runs,), so that predictions are (mixes,)."""

    @property
    def c(self) -> np.ndarray:
        """(validation,), nats: what no mix goes below."""
        return self.parameters[:, 0]

    @property
    def t(self) -> np.ndarray:
        """(validation, sources), of each share in the exponent: the lower, the more the source lowers the loss."""
        return self.parameters[:, 1 : 1 + self.ratios.shape[1]]

    def predict(self, ratios: np.ndarray) -> np.ndarray:
        """(mixes, sources) -> (mixes, validation), nats; (mixes,) if it was fitted to (runs,).

        Raises:
            ValueError: these are no mixes of the law's sources.
        """
        losses = self._at(self.parameters, ratios).T
        return losses[:, 0] if self.of_one else losses

    def draws(self, ratios: np.ndarray) -> np.ndarray:
        """Predictions of laws that other samples of the runs would have given: (draws, mixes, validation).

        Each weights the runs at random (the Bayesian bootstrap), so that none loses all runs of a source. A spread about the
        law is made larger by the freedom that its parameters take from so few runs.
        """
        centre = self._at(self.parameters, ratios).T
        n, k = len(self.ratios), self.parameters.shape[1]
        free = max(n - k, n / 4)
        larger = np.sqrt(n / free) * stats.t.ppf(_TAIL, free) / stats.norm.ppf(_TAIL)
        draws: np.ndarray = centre + larger * (self._at(self._drawn, ratios).swapaxes(1, 2) - centre)
        return draws

    def interval(self, ratios: np.ndarray, *, confidence: float = CONFIDENCE) -> tuple[np.ndarray, np.ndarray]:
        """Where the law itself lies: (lower, upper) ends, each shaped as `predict`."""
        return self._ends(self.draws(ratios), confidence)

    def run_interval(self, ratios: np.ndarray, *, confidence: float = CONFIDENCE) -> tuple[np.ndarray, np.ndarray]:
        """Where a run of the mix would end: as `interval`, and with the errors of the runs that were left out."""
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
        """Every run predicted from the others, beside a linear fit and the mean of the runs. The form stays that of all runs."""

        def refitted(samples: np.ndarray) -> np.ndarray:
            fitted = fit_samples(self.ratios, self.losses, samples, self.form, start=self.parameters)
            return predict_losses(fitted, self.form.features(self.ratios)).swapaxes(1, 2)

        return cross_validate(self.ratios, self.losses, refitted, most_folds=_MOST_FOLDS)

    @cached_property
    def noise(self) -> tuple[np.ndarray, int]:
        """Of runs of the same mix: standard deviation (validation,), and its degrees of freedom; 0 of them: it is unknown."""
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
                f"ratios have {mixes.shape[1]} sources, and the law was fitted to mixes of {self.ratios.shape[1]}."
            )
        return predict_losses(parameters, self.form.features(mixes))

    def _ends(self, draws: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
        low, high = _quantiles(draws, confidence)
        return (low[:, 0], high[:, 0]) if self.of_one else (low, high)


def fit_mix_law(ratios: np.ndarray, losses: np.ndarray, *, powers: Sequence[float] = _POWERS) -> MixLaw:
    """Fit a law to runs.

    Whether shares or their square roots count, and how much is held where runs say little, is what predicts left-out runs
    best; the published form, shares as they are, unless another is clearly better.

    Args:
        ratios: (runs, sources), the shares that each run drew, each row summing to 1.
        losses: (runs,) or (runs, validation sources), nats.
        powers: of the shares in the exponent, to choose from; (1.0,) is the published law alone.

    Raises:
        ValueError: shapes do not go together, a number is not finite, rows are no mixes, or there are fewer than 3 runs.
    """
    ratios = _mixes(ratios)
    given = np.asarray(losses, dtype=float)
    if given.ndim not in (1, 2) or len(given) != len(ratios):
        raise ValueError(
            f"losses have the shape {given.shape}: they must be those of the {len(ratios)} runs of ratios."
        )
    table = given.reshape(len(given), -1)
    if not np.isfinite(table).all():
        raise ValueError(f"the loss of run {int(np.argwhere(~np.isfinite(table))[0][0])} is not finite: leave it out.")
    if (table < 0).any():
        raise ValueError(
            f"the loss of run {int(np.argwhere(table < 0)[0][0])} is negative: a law is of losses in nats."
        )
    if len(ratios) < 3:
        raise ValueError(
            f"there are {len(ratios)} runs: a law takes 3 at the very least, and 2 a source to mean anything."
        )
    form = _choose(ratios, table, powers)
    parameters = fit_samples(ratios, table, np.ones((1, len(ratios))), form)[0]
    return MixLaw(form, parameters, ratios, table, of_one=given.ndim == 1)


def _choose(ratios: np.ndarray, losses: np.ndarray, powers: Sequence[float]) -> LawForm:
    """The form whose errors on left-out runs are the smallest; of a later power, if that is more than chance."""
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
            f"ratios have the shape {table.shape}: they must be a table, a row for each mix, a column for each source."
        )
    wrong = ~np.isfinite(table).all(axis=1) | (table < 0).any(axis=1) | (np.abs(table.sum(axis=1) - 1) > _ENDS)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"row {row} of ratios is no mix: shares are 0 or more and sum to 1, and these sum to {table[row].sum():.4g}."
        )
    return table / table.sum(axis=1, keepdims=True)


def _quantiles(draws: np.ndarray, confidence: float) -> np.ndarray:
    """Both ends of the middle of draws, along their first axis."""
    tail = (1 - confidence) / 2
    ends: np.ndarray = np.quantile(draws, [tail, 1 - tail], axis=0)
    return ends
