"""Fit the law's parameters to samples of the runs, robustly and regularised.

If a source is rare in all runs, the runs do not determine c + exp(t . r) at mixes with a large share of this source,
and least squares can give arbitrary values. So a pseudo-run is added for each source: a mix of this source alone, with
the mean loss, weighted as a small part of a run (`LawForm.evidence`). Where real runs are informative, they outweigh
the pseudo-runs.
"""

from dataclasses import dataclass

import numpy as np

from mix_laws.batched_exponential_fit import fit_exponentials

_TOLERATED = 2.0  # robust standard deviations, above which a residual counts linearly instead of quadratically (Huber)
_ROUNDS = 4
_USUAL = 10.0  # typical size of a parameter t with square roots of shares
_TO_DEVIATION = 1.4826  # standard deviation of a normal distribution, in units of its median absolute deviation


@dataclass(frozen=True)
class LawForm:
    """The hyperparameters of the law."""

    power: float
    """Power of the shares in the exponent; 1: the published law; less: the first percent has more effect."""
    evidence: float
    """Weight, in runs, of the pseudo-run of each source alone with the mean loss."""

    def features(self, ratios: np.ndarray) -> np.ndarray:
        """Return features, (runs, sources) -> (runs, k): powers of the shares, and a constant unless the power is 1."""
        if self.power == 1:
            return ratios
        return np.column_stack([ratios**self.power, np.ones(len(ratios))])


def fit_samples(
    ratios: np.ndarray, losses: np.ndarray, samples: np.ndarray, form: LawForm, *, start: np.ndarray | None = None
) -> np.ndarray:
    """Fit the law to every validation loss, once for each weighting of the runs, for example each bootstrap sample.

    Args:
        ratios: (runs, sources), shares.
        losses: (runs, validation), in nats.
        samples: (samples, runs), weight of each run in each sample; 0 excludes it.
        form: Hyperparameters of the law.
        start: (validation, 1 + k), initial values; None: several guesses.

    Returns:
        (samples, validation, 1 + k): c, then the k coefficients t. With power 1 there is one coefficient for each
            source, otherwise one more for the constant.
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
    # square roots are concave, so a mix can be worse than each of its sources alone; the pseudo-runs do not bound it
    ridge = np.tile(losses.var(axis=0), n_samples) * (0.0 if form.power == 1 else form.evidence / _USUAL**2)
    fitted = fit_exponentials(x, y, weights, ridge, start=None if start is None else np.tile(start, (n_samples, 1)))
    for _ in range(_ROUNDS):
        residuals = np.abs(predict_losses(fitted, x[:n_runs]) - y[:, :n_runs])
        weights[:, :n_runs] = counted * _huber(residuals, counted, x.shape[1] + 1)
        fitted = fit_exponentials(x, y, weights, ridge, start=fitted)
    return fitted.reshape(n_samples, n_validation, -1)


def predict_losses(fitted: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Predict losses from parameters and features: (…, 1 + k) and (mixes, k) -> (…, mixes)."""
    losses: np.ndarray = fitted[..., :1] + np.exp(np.minimum(fitted[..., 1:] @ features.T, 30.0))
    return losses


def _huber(residuals: np.ndarray, counted: np.ndarray, n_parameters: int) -> np.ndarray:
    """Return Huber weights of residuals, (fits, runs): 1, or less for large residuals."""
    middle = np.nanmedian(np.where(counted > 0, residuals, np.nan), axis=1)
    n = (counted > 0).sum(axis=1)
    scale = _TO_DEVIATION * middle * np.sqrt(n / np.maximum(n - n_parameters, n / 4)) + 1e-12
    shares: np.ndarray = np.minimum(1.0, _TOLERATED * scale[:, None] / np.maximum(residuals, 1e-300))
    return shares
