"""The law's parameters for samples of some runs: robust, and held where runs say little.

c + exp(t . r) of a source that is rare in all runs can be anything at a mix with much of it, and least squares makes it
anything. So each source has, beside the runs, a run of its own that never was: that source alone, ending with the mean loss,
counted as a small part of a run (`LawForm.evidence`). Where real runs speak, they outvote it.
"""

from dataclasses import dataclass

import numpy as np

from mix_laws.batched_exponential_fit import fit_exponentials

_TOLERATED = 2.0  # robust standard deviations: a larger residual counts by its size, no longer by its square (Huber)
_ROUNDS = 4
_USUAL = 10.0  # of a parameter t, where roots of shares count
_TO_DEVIATION = 1.4826  # of a normal distribution's median absolute deviation


@dataclass(frozen=True)
class LawForm:
    """What of the law is chosen and not fitted."""

    power: float
    """Of the shares in the exponent: 1 is the published law; less, and the first percents of a source count for more."""
    evidence: float
    """How much of a run each source alone, with the mean loss, counts as."""

    def features(self, ratios: np.ndarray) -> np.ndarray:
        """(runs, sources) -> (runs, k): shares to their power; with a constant, unless they sum to one as it is."""
        if self.power == 1:
            return ratios
        return np.column_stack([ratios**self.power, np.ones(len(ratios))])


def fit_samples(
    ratios: np.ndarray, losses: np.ndarray, samples: np.ndarray, form: LawForm, *, start: np.ndarray | None = None
) -> np.ndarray:
    """Fit every validation source on every sample of the runs.

    Args:
        ratios: (runs, sources).
        losses: (runs, validation sources).
        samples: (samples, runs), how often each run is in each of them; 0 leaves it out.
        form: of the law.
        start: (validation sources, 1 + k), where to begin; None: at several guesses.

    Returns:
        (samples, validation sources, 1 + k): c, then t.
    """
    n_runs, n_sources = ratios.shape
    n_samples, n_validation = len(samples), losses.shape[1]
    means = samples @ losses / samples.sum(axis=1, keepdims=True)  # (samples, validation)
    x = form.features(np.vstack([ratios, np.eye(n_sources)]))
    y = np.concatenate(
        [
            np.broadcast_to(losses.T, (n_samples, n_validation, n_runs)),
            np.broadcast_to(means[:, :, None], (n_samples, n_validation, n_sources)),
        ],
        axis=2,
    ).reshape(n_samples * n_validation, -1)
    counted = np.repeat(samples, n_validation, axis=0)  # (fits, runs)
    weights = np.column_stack([counted, np.full((len(counted), n_sources), form.evidence)])
    # roots are concave, so that a mix can be worse than each of its sources alone: what is known of those does not hold it
    ridge = np.tile(losses.var(axis=0), n_samples) * (0.0 if form.power == 1 else form.evidence / _USUAL**2)
    fitted = fit_exponentials(x, y, weights, ridge, start=None if start is None else np.tile(start, (n_samples, 1)))
    for _ in range(_ROUNDS):
        residuals = np.abs(predict_losses(fitted, x[:n_runs]) - y[:, :n_runs])
        weights[:, :n_runs] = counted * _huber(residuals, counted, x.shape[1] + 1)
        fitted = fit_exponentials(x, y, weights, ridge, start=fitted)
    return fitted.reshape(n_samples, n_validation, -1)


def predict_losses(fitted: np.ndarray, features: np.ndarray) -> np.ndarray:
    """(…, 1 + k) and (mixes, k) -> (…, mixes)."""
    losses: np.ndarray = fitted[..., :1] + np.exp(np.minimum(fitted[..., 1:] @ features.T, 30.0))
    return losses


def _huber(residuals: np.ndarray, counted: np.ndarray, n_parameters: int) -> np.ndarray:
    """How much each residual still counts, (fits, runs): 1, or less where it is large against the others of its fit."""
    middle = np.nanmedian(np.where(counted > 0, residuals, np.nan), axis=1)
    n = (counted > 0).sum(axis=1)
    scale = _TO_DEVIATION * middle * np.sqrt(n / np.maximum(n - n_parameters, n / 4)) + 1e-12
    shares: np.ndarray = np.minimum(1.0, _TOLERATED * scale[:, None] / np.maximum(residuals, 1e-300))
    return shares
