"""Many fits of y = c + exp(x . t) at once, by weighted least squares: Levenberg and Marquardt's method on all together.

A law is fitted thousands of times, to leave each run out and to draw other samples of them, on the same few features. One
matrix product does for all of these what a solver called for each does in minutes.
"""

from collections.abc import Iterator

import numpy as np

_MOST_STEPS = 50
_CONVERGED = 1e-6  # of what is to be least, relative
_LARGEST = 30.0  # of an exponent: a loss is no e^30, and the search must not overflow on its way
_BELOW = (0.05, 0.3, 1.0, 4.0)  # how far below the lowest y the first guesses of c lie, in spans of y


def fit_exponentials(
    x: np.ndarray, y: np.ndarray, weights: np.ndarray, ridge: np.ndarray, *, start: np.ndarray | None = None
) -> np.ndarray:
    """c and t of each fit with the least weighted sum of squares plus ridge * t . t, c never negative.

    Args:
        x: (n, k), of all fits the same.
        y: (fits, n).
        weights: (fits, n), of the squares, 0 or more.
        ridge: (fits,), 0 or more.
        start: (fits, 1 + k), where to begin; None: at some guesses, of which the best fit is given.

    Returns:
        (fits, 1 + k), c first.
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
    """(what is to be least, exponentials, residuals) of each fit: (fits,), (fits, n), (fits, n)."""
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
    """The damped Gauss-Newton step of each fit, (fits, 1 + k); c stays where it is 0 and would fall."""
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
    )  # a flat fit has no slopes at all
    steps: np.ndarray = np.linalg.solve(normal, downhill[:, :, None])[:, :, 0]
    return steps


def _guesses(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> Iterator[np.ndarray]:
    """Linear fits to the logarithm of y - c, for some c below all y, and to its mean: where y hardly changes, slopes mislead."""
    lowest, span = y.min(axis=1), np.ptp(y, axis=1)
    normal = np.einsum("bn,ni,nj->bij", weights, x, x) + 1e-9 * np.eye(x.shape[1])
    for below in _BELOW:
        c = np.maximum(lowest - below * span, 0.0)
        logarithms = np.log(y - c[:, None] + 1e-3 * span[:, None] + 1e-12)
        levels = np.broadcast_to(np.average(logarithms, axis=1, weights=weights)[:, None], y.shape)
        for wanted in (logarithms, levels) if below == _BELOW[-1] else (logarithms,):
            t = np.linalg.solve(normal, ((weights * wanted) @ x)[:, :, None])[:, :, 0]
            yield np.column_stack([c, t])
