"""Many weighted least-squares fits of y = c + exp(x . t) at once, with the Levenberg-Marquardt method in batches.

A law is fitted thousands of times, for cross-validation and the bootstrap, on the same few features. One batched matrix
product replaces a separate solver call per fit, which would take minutes.
"""

from collections.abc import Iterator

import numpy as np

_MOST_STEPS = 50
_CONVERGED = 1e-6  # relative decrease of the cost below which a fit has converged
_LARGEST = 30.0  # limit of exponents; no loss is as large as e^30, and the search must not overflow
_BELOW = (0.05, 0.3, 1.0, 4.0)  # initial guesses of c: distance below the lowest y, in units of the range of y


def fit_exponentials(
    x: np.ndarray, y: np.ndarray, weights: np.ndarray, ridge: np.ndarray, *, start: np.ndarray | None = None
) -> np.ndarray:
    """Find c and t of each fit that minimise the weighted sum of squares plus ridge * t . t, with c >= 0.

    Args:
        x: (n, k), the same for all fits.
        y: (fits, n).
        weights: (fits, n), weights of the squares, 0 or more.
        ridge: (fits,), 0 or more.
        start: (fits, 1 + k), initial values; None: try several guesses and return the best fit.

    Returns:
        (fits, 1 + k): c, then t.
    """
    if start is None:
        found = [fit_exponentials(x, y, weights, ridge, start=guess) for guess in _guesses(x, y, weights)]
        costs = np.array([_look(x, y, weights, ridge, fitted)[0] for fitted in found])  # (guesses, fits)
        return np.array(found)[costs.argmin(axis=0), np.arange(len(y))]
    fitted = start.copy()
    products = (x[:, :, None] * x[:, None, :]).reshape(len(x), -1)  # (n, k * k)
    damping = np.full(len(y), 1e-3)
    costs, exponentials, residuals = _look(x, y, weights, ridge, fitted)
    active = np.arange(len(y))
    for _ in range(_MOST_STEPS):
        state = exponentials[active], residuals[active], fitted[active], damping[active]
        steps = _steps(x, products, weights[active], ridge[active], *state)
        tried = fitted[active] + steps
        tried[:, 0] = np.maximum(tried[:, 0], 0.0)
        new_costs, new_exponentials, new_residuals = _look(x, y[active], weights[active], ridge[active], tried)
        old_costs = costs[active]
        better = new_costs < old_costs
        damping[active] = np.where(better, damping[active] / 5, damping[active] * 4)
        won = active[better]
        fitted[won], costs[won] = tried[better], new_costs[better]
        exponentials[won], residuals[won] = new_exponentials[better], new_residuals[better]
        settled = better & (old_costs - new_costs <= _CONVERGED * old_costs)
        active = active[~settled & (damping[active] < 1e8)]
        if not len(active):
            break
    return fitted


def _look(
    x: np.ndarray, y: np.ndarray, weights: np.ndarray, ridge: np.ndarray, fitted: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (costs, exponentials, residuals) of each fit: (fits,), (fits, n), (fits, n)."""
    exponentials = np.exp(np.minimum(fitted[:, 1:] @ x.T, _LARGEST))
    residuals = fitted[:, :1] + exponentials - y
    costs = (weights * residuals**2).sum(axis=1) + ridge * (fitted[:, 1:] ** 2).sum(axis=1)
    return costs, exponentials, residuals


def _steps(
    x: np.ndarray,
    products: np.ndarray,
    weights: np.ndarray,
    ridge: np.ndarray,
    exponentials: np.ndarray,
    residuals: np.ndarray,
    fitted: np.ndarray,
    damping: np.ndarray,
) -> np.ndarray:
    """Return the damped Gauss-Newton step of each fit, (fits, 1 + k); c is held at 0 if it would become negative."""
    n_fits, k = len(weights), x.shape[1]
    sloped = weights * exponentials  # d residual / d t is exponential * x
    normal = np.empty((n_fits, 1 + k, 1 + k))
    normal[:, 0, 0] = weights.sum(axis=1)
    normal[:, 0, 1:] = normal[:, 1:, 0] = sloped @ x
    normal[:, 1:, 1:] = ((sloped * exponentials) @ products).reshape(n_fits, k, k)
    normal[:, 1:, 1:] += ridge[:, None, None] * np.eye(k)
    downhill = -np.column_stack(
        [(weights * residuals).sum(axis=1), (sloped * residuals) @ x + ridge[:, None] * fitted[:, 1:]]
    )
    held = (fitted[:, 0] <= 0) & (downhill[:, 0] < 0)
    normal[held, 0, :] = normal[held, :, 0] = 0.0
    normal[held, 0, 0], downhill[held, 0] = 1.0, 0.0
    diagonal = np.einsum("bii->bi", normal)
    diagonal += damping[:, None] * diagonal + 1e-12 * diagonal.max(
        axis=1, keepdims=True
    )  # the second term is for flat fits, whose slopes are all 0
    steps: np.ndarray = np.linalg.solve(normal, downhill[:, :, None])[:, :, 0]
    return steps


def _guesses(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> Iterator[np.ndarray]:
    """Yield linear fits to log(y - c) for several c below all y, and to its mean, for y that hardly varies."""
    lowest, span = y.min(axis=1), np.ptp(y, axis=1)
    normal = np.einsum("bn,ni,nj->bij", weights, x, x) + 1e-9 * np.eye(x.shape[1])
    for below in _BELOW:
        c = np.maximum(lowest - below * span, 0.0)
        logarithms = np.log(y - c[:, None] + 1e-3 * span[:, None] + 1e-12)
        levels = np.broadcast_to(np.average(logarithms, axis=1, weights=weights)[:, None], y.shape)
        for wanted in (logarithms, levels) if below == _BELOW[-1] else (logarithms,):
            t = np.linalg.solve(normal, ((weights * wanted) @ x)[:, :, None])[:, :, 0]
            yield np.column_stack([c, t])
