"""Mixes of sources, none beyond its limit: which there are, and the nearest to one that is beyond."""

from collections.abc import Mapping, Sequence

import numpy as np


def clip_to_caps(mix: np.ndarray, caps: np.ndarray) -> np.ndarray:
    """The mix with shares beyond their caps lowered to them, and what is left over given to the others by their shares.

    Args:
        mix: (sources,), summing to 1.
        caps: (sources,), the most of each, summing to 1 or more.
    """
    mix = np.minimum(mix, caps)
    for _ in range(len(mix)):
        free = mix < caps
        missing = 1 - mix.sum()
        if missing < 1e-12 or not free.any():
            break
        share = mix * free if (mix * free).sum() > 0 else free * (caps - mix)
        mix = np.minimum(mix + missing * share / share.sum(), caps)
    return mix


def random_mixes(n: int, caps: np.ndarray, *, floor: float, seed: int) -> np.ndarray:
    """(n, sources) from Dirichlet distributions, from even ones to nearly pure ones, each share from `floor` to its cap."""
    random = np.random.default_rng(seed)
    k = len(caps)
    concentrations = np.exp(random.uniform(np.log(0.2), np.log(3.0), n))  # the lower, the nearer to a source alone
    gammas = random.gamma(np.repeat(concentrations[:, None], k, axis=1)) + 1e-300
    mixes = gammas / gammas.sum(axis=1, keepdims=True)
    free = np.maximum(caps - floor, 0.0) / (1 - k * floor)
    return np.array([floor + (1 - k * floor) * clip_to_caps(mix, free) for mix in mixes])


def caps_array(sequences: Mapping[str, int], total: int, max_epochs: float) -> np.ndarray:
    """The most of each source's share in a run, (sources,): so many passes over its training sequences.

    Args:
        sequences: there are of each source to train on.
        total: sequences that the run draws.
        max_epochs: passes over a source.

    Raises:
        ValueError: all sources together are not enough for the run.
    """
    caps = np.minimum(1.0, max_epochs * np.array(list(sequences.values()), dtype=float) / total)
    if caps.sum() < 1:
        raise ValueError(
            f"{max_epochs:g} epochs of {', '.join(sequences)} are {caps.sum():.0%} of the {total:,} sequences of the run: allow "
            "more epochs, make the run shorter, or add a source."
        )
    return caps


def weights_by_source(sources: Sequence[str], mix: np.ndarray, caps: np.ndarray) -> dict[str, float]:
    """A mix as it is written in a config: four decimals that sum to 1, none above its cap."""
    units = np.floor(np.minimum(mix, caps) * 10_000 + 1e-6).astype(int)
    room = np.floor(caps * 10_000 + 1e-6).astype(int) - units
    for n in np.argsort(-mix):
        more = min(10_000 - int(units.sum()), int(room[n]))
        units[n] += more
    return {source: int(n) / 10_000 for source, n in zip(sources, units, strict=True)}
