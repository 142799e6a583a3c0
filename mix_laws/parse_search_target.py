"""Convert the user's settings to the objective and constraints of a search."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mix_laws.best_mix_search import SearchTarget
from mix_laws.fit_data import MixRuns
from mix_laws.simplex import caps_array


def parse_search_target(
    runs: MixRuns,
    *,
    weights: Mapping[str, float],
    prior: Mapping[str, float],
    closeness: float,
    max_epochs: float | None,
    tokens: float | None,
) -> SearchTarget:
    """Check the settings of a search and convert them.

    Args:
        runs: Provides the names of sources and validation losses.
        weights: Validation loss -> weight in the mean; empty: equal weights. Losses not listed have weight 0.
        prior: Source -> share, the mix to stay close to; empty: the mean of the runs' mixes.
        closeness: Decrease in loss, in nats, that justifies one nat of divergence from the prior.
        max_epochs: Limit for each source; None: no caps. If the sizes of sources are unknown, there are no caps either.
        tokens: Number of tokens of the run to plan; None: as many as each of the runs.

    Raises:
        ValueError: A name is unknown, a value is not a valid number, or the sources are too small for the run.
    """
    if not _is_number(closeness) or closeness < 0:
        raise ValueError(f"mix.closeness is {closeness!r}: it must be a number, 0 or more.")
    for key, value in (("max_epochs", max_epochs), ("tokens", tokens)):
        if value is not None and (not _is_number(value) or value <= 0):
            raise ValueError(f"mix.{key} is {value!r}: it must be a number above 0, or null.")
    caps = np.ones(len(runs.sources))
    if runs.sequences and max_epochs is not None:
        total = runs.total if tokens is None else max(1, round(tokens / runs.max_seq_len))
        caps = caps_array(runs.sequences, total, max_epochs)
    elif tokens is not None:
        raise ValueError("mix.tokens is set: it must be null, because the sizes of the sources are unknown.")
    return SearchTarget(
        weights=_shares("mix.weights", weights, runs.validation, np.ones(len(runs.validation))),
        prior=_shares("mix.prior", prior, runs.sources, runs.ratios.mean(axis=0)),
        caps=caps,
        closeness=float(closeness),
    )


def _shares(setting: str, given: Mapping[str, Any], names: Sequence[str], default: np.ndarray) -> np.ndarray:
    if not isinstance(given, Mapping):
        raise ValueError(f"{setting} is {given!r}: it must map names to numbers, such as {{{names[0]}: 1}}.")
    for name, value in given.items():
        if name not in names:
            raise ValueError(f"{setting}.{name} is unknown: it must be one of {', '.join(names)}.")
        if not _is_number(value) or value < 0:
            raise ValueError(f"{setting}.{name} is {value!r}: it must be a number, 0 or more.")
    shares = np.array([given.get(name, 0.0) for name in names], dtype=float) if given else default
    if not shares.sum() > 0:
        raise ValueError(f"{setting} are all 0: at least one must be above 0.")
    normalised: np.ndarray = shares / shares.sum()
    return normalised


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and bool(np.isfinite(value))
