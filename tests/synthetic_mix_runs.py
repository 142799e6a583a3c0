"""Worlds in which the law is known, and runs in them."""

from collections.abc import Callable

import numpy as np

World = Callable[[np.ndarray], np.ndarray]
"""(mixes, sources) -> (mixes, validation), nats."""


def world(*, power: float = 1.0, spread: float = 1.0, sources: int = 4, seed: int = 0) -> World:
    """Losses that follow the law; of each source the own corpus teaches most. A spread of 0: the mix does not matter."""
    random = np.random.default_rng(seed)
    t = random.normal(-0.6, 0.4, (sources, sources)) * spread
    t[np.arange(sources), np.arange(sources)] -= 1.5 * spread
    c = random.uniform(2.5, 3.5, sources)
    return lambda ratios: c + np.exp(0.3 + ratios**power @ t.T)


def runs_of(
    losses: World, n: int, *, sources: int = 4, noise: float = 0.005, seed: int = 100
) -> tuple[np.ndarray, np.ndarray]:
    """(ratios, measured losses) of n runs with random mixes."""
    random = np.random.default_rng(seed)
    ratios = 0.02 + (1 - 0.02 * sources) * random.dirichlet(np.ones(sources), n)
    measured = losses(ratios)
    return ratios, measured + noise * random.normal(size=measured.shape)
