"""Which mixes to run, so that a law fitted to them is as sure as it can be (D-optimal design, by exchange).

The law's exponent is linear in the shares, or their roots, so what a set of mixes says of it is the determinant of the sum of
the products of these features. Of many Dirichlet mixes under the caps those are taken that make it largest, none twice: with
both kinds of features, mixes between the extremes are among them, which show the curve.
"""

import numpy as np

from mix_laws.simplex import clip_to_caps, random_mixes

MIN_WEIGHT = 0.01
"""The least share of a source in a run of the design: one that is not drawn at all would not be validated."""
_CANDIDATES = 2000
_APART = 0.1  # sum of the differences of the shares of two mixes, at least
_SWEEPS = 5


def design_mixes(n: int, caps: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """(n, sources) mixes, no two alike, the first with as much of every source as the caps let it.

    Args:
        n: runs.
        caps: (sources,), the most of each.
        seed: of the candidates.

    Raises:
        ValueError: these are fewer than two runs a source, or a cap leaves no room for a source.
    """
    k = len(caps)
    if n < 2 * k:
        raise ValueError(
            f"mix_design is {n}: a law of {k} sources takes at least {2 * k} runs, and {4 * k} to be comfortable."
        )
    if (caps < MIN_WEIGHT).any() or caps.sum() < 1:
        raise ValueError(
            f"a source may have at most {caps.min():.2%} of the run: the design needs {MIN_WEIGHT:.0%} of each source."
        )
    centre = clip_to_caps(np.full(k, 1 / k), caps)
    candidates = np.vstack([_corners(caps), random_mixes(_CANDIDATES, caps, floor=MIN_WEIGHT, seed=seed)])
    chosen = _most_informative(candidates, n - 1, centre[None])
    return np.vstack([centre, candidates[sorted(chosen)]])


def information(mixes: np.ndarray) -> float:
    """Logarithm of the determinant: a unit more, for each parameter half a unit of certainty; (mixes, sources)."""
    features = _features(mixes)
    return float(np.linalg.slogdet(features.T @ features)[1])


def _features(mixes: np.ndarray) -> np.ndarray:
    """(mixes, 2 * sources)."""
    return np.column_stack([mixes, mixes**0.5])


def _corners(caps: np.ndarray) -> np.ndarray:
    """Each source as much as it may, the others alike: (sources, sources)."""
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
    """Greedy choice of n rows beside the fixed ones, then exchanges of one for another as long as they help."""
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
    """The row that raises the determinant most, the one of which the others know least; near none of them, if there is such."""
    matrix = base + features[taken].T @ features[taken]
    unknown = ((features @ np.linalg.inv(matrix)) * features).sum(axis=1)
    apart = np.abs(candidates[:, None] - candidates[taken]).sum(axis=2).min(axis=1, initial=np.inf)
    return int(np.where(apart > _APART, unknown, unknown - unknown.max() - 1).argmax())
