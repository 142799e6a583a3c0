"""Choose mixes to train so that the law fitted to them is as certain as possible (D-optimal design by exchange).

The law's exponent is linear in the shares or in their square roots. How well a set of mixes determines the law is
measured by the determinant of the sum of outer products of these features. From many Dirichlet mixes under the caps,
the set with the largest determinant is chosen, without repeats. Because both kinds of features are used, this set
includes mixes between the extremes, which determine the curvature.
"""

import numpy as np

from mix_laws.simplex import clip_to_caps, random_mixes

MIN_WEIGHT = 0.01
"""Minimum share of a source in a run of the design. A source that is not drawn would not be validated either."""
_CANDIDATES = 2000
_APART = 0.1  # minimum sum of absolute differences between the shares of two mixes
_SWEEPS = 5


def design_mixes(n: int, caps: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Choose mixes for an experiment.

    Args:
        n: Number of runs.
        caps: (sources,), maximum share of each source.
        seed: Seed of the candidate mixes.

    Returns:
        (n, sources) different mixes. The first is as uniform as the caps allow.

    Raises:
        ValueError: There are fewer than two runs per source, a cap is below `MIN_WEIGHT`, or the caps sum to less than 1.
    """
    k = len(caps)
    if n < 2 * k:
        raise ValueError(
            f"mix_design is {n}: it must be at least {2 * k} for a law of {k} sources; {4 * k} runs are recommended."
        )
    if caps.min() < MIN_WEIGHT:
        raise ValueError(
            f"the smallest maximum share of a source is {caps.min():.2%} of the run: it must be at least {MIN_WEIGHT:.0%}."
        )
    if caps.sum() < 1:
        raise ValueError(f"the maximum shares of the sources sum to {caps.sum():.2%}: they must sum to at least 100%.")
    centre = clip_to_caps(np.full(k, 1 / k), caps)
    candidates = np.vstack([_corners(caps), random_mixes(_CANDIDATES, caps, floor=MIN_WEIGHT, seed=seed)])
    chosen = _most_informative(candidates, n - 1, centre[None])
    return np.vstack([centre, candidates[sorted(chosen)]])


def information(mixes: np.ndarray) -> float:
    """Return the logarithm of the determinant for (mixes, sources). The larger it is, the more certain are the
    parameters.
    """
    features = _features(mixes)
    return float(np.linalg.slogdet(features.T @ features)[1])


def _features(mixes: np.ndarray) -> np.ndarray:
    """Return the features of mixes, (mixes, 2 * sources)."""
    return np.column_stack([mixes, mixes**0.5])


def _corners(caps: np.ndarray) -> np.ndarray:
    """Return one mix per source, in which it has its maximum share and the others are equal: (sources, sources)."""
    k = len(caps)
    highest = np.minimum(caps, 1 - (k - 1) * MIN_WEIGHT)
    others = (1 - highest)[:, None] / (k - 1) if k > 1 else np.zeros((1, 1))
    mixes = np.where(np.eye(k, dtype=bool), highest[:, None], others)
    free = (caps - MIN_WEIGHT) / (1 - k * MIN_WEIGHT)
    return np.array(
        [
            MIN_WEIGHT + (1 - k * MIN_WEIGHT) * clip_to_caps((mix - MIN_WEIGHT) / (1 - k * MIN_WEIGHT), free)
            for mix in mixes
        ]
    )


def _most_informative(candidates: np.ndarray, n: int, fixed: np.ndarray) -> list[int]:
    """Choose n rows greedily, in addition to the fixed ones, then exchange single rows as long as that helps."""
    features = _features(candidates)
    base = _features(fixed).T @ _features(fixed) + 1e-6 * np.eye(features.shape[1])
    chosen: list[int] = []
    for _ in range(n):
        chosen.append(_next(candidates, features, base, chosen))
    for _ in range(_SWEEPS):
        before = list(chosen)
        for place in range(n):
            chosen[place] = _next(candidates, features, base, chosen[:place] + chosen[place + 1 :])
        if chosen == before:
            break
    return chosen


def _next(candidates: np.ndarray, features: np.ndarray, base: np.ndarray, taken: list[int]) -> int:
    """Return the row that increases the determinant most and, if possible, is not close to the rows taken."""
    matrix = base + features[taken].T @ features[taken]
    unknown = ((features @ np.linalg.inv(matrix)) * features).sum(axis=1)
    apart = np.abs(candidates[:, None] - candidates[taken]).sum(axis=2).min(axis=1, initial=np.inf)
    return int(np.where(apart > _APART, unknown, unknown - unknown.max() - 1).argmax())
