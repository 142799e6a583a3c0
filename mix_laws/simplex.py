"""Mixes of sources under caps: clipping, random sampling and rounding."""

from collections.abc import Mapping, Sequence

import numpy as np


def clip_to_caps(mix: np.ndarray, caps: np.ndarray) -> np.ndarray:
    """Lower shares above their caps to the caps, and distribute the rest over the other sources, by share.

    Args:
        mix: (sources,), summing to 1.
        caps: (sources,), maximum shares, summing to 1 or more.
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
    """Return (n, sources) Dirichlet mixes, from uniform to nearly pure ones; each share is from `floor` to its cap."""
    random = np.random.default_rng(seed)
    k = len(caps)
    concentrations = np.exp(random.uniform(np.log(0.2), np.log(3.0), n))  # a low value gives nearly pure mixes
    gammas = random.gamma(np.repeat(concentrations[:, None], k, axis=1)) + 1e-300
    mixes = gammas / gammas.sum(axis=1, keepdims=True)
    free = np.maximum(caps - floor, 0.0) / (1 - k * floor)
    return np.array([floor + (1 - k * floor) * clip_to_caps(mix, free) for mix in mixes])


def caps_array(sequences: Mapping[str, int], total: int, max_epochs: float) -> np.ndarray:
    """Return the maximum share of each source in a run, (sources,), given a limit of epochs.

    Args:
        sequences: Source -> number of its training sequences.
        total: Number of sequences that the run draws.
        max_epochs: Maximum number of epochs per source.

    Raises:
        ValueError: All sources together are too small for the run.
    """
    caps = np.minimum(1.0, max_epochs * np.array(list(sequences.values()), dtype=float) / total)
    if caps.sum() < 1:
        raise ValueError(
            f"{max_epochs:g} epochs of {', '.join(sequences)} give {caps.sum():.0%} of the {total:,} sequences of the "
            "run: they must give at least 100%. Allow more epochs, shorten the run, or add a source."
        )
    return caps


def weights_by_source(sources: Sequence[str], mix: np.ndarray, caps: np.ndarray) -> dict[str, float]:
    """Round the shares of a mix to four decimals for a config. They sum to 1, and none exceeds its cap."""
    units = np.floor(np.minimum(mix, caps) * 10_000 + 1e-6).astype(int)
    room = np.floor(caps * 10_000 + 1e-6).astype(int) - units
    for n in np.argsort(-mix):
        more = min(10_000 - int(units.sum()), int(room[n]))
        units[n] += more
    return {source: int(n) / 10_000 for source, n in zip(sources, units, strict=True)}
