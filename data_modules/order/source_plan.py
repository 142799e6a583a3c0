"""What the sample order draws from each source: how much, how often, when, and the source's share of the loss."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from data_modules.order.sample_order import SampleOrder

TENTHS = 10


@dataclass(frozen=True)
class SourcePlan:
    """The plan for one source of a run."""

    sequences: int
    """Number of sequences drawn in the whole run."""
    unique_sequences: int
    """Number of different training sequences."""
    epochs: float
    max_epochs: float | None
    """Limit of the curriculum; None: no limit."""
    repeats_after: int | None
    """Number of steps after which every sequence has been drawn once and the next is a repeat; None: never."""
    limit_reached_after: int | None
    """Number of steps after which `max_epochs` are drawn; None: never, or there is no limit."""
    tenths: list[float]
    """The source's share of the sequences in each tenth of the run, 0 to 1."""
    loss_bearing: float
    """The source's share of the run's loss-bearing tokens, 0 to 1."""
    loss_bearing_last_tenth: float
    """The source's share of the loss-bearing tokens of the last tenth, 0 to 1."""


def plan_sources(order: SampleOrder, loss_bearing: Mapping[str, np.ndarray | float]) -> dict[str, SourcePlan]:
    """Compute what a run draws from each source. The mix ledger checks this during training.

    Args:
        order: The order of the run.
        loss_bearing: Source -> number of loss-bearing targets of each training sequence, (sequences,), or for a source
            that is not prepared, the expected mean.
    """
    borders = np.linspace(0, order.steps, TENTHS + 1).round().astype(np.int64)
    drawn = order.drawn_before(borders)  # (borders, sources)
    of_tenths = np.diff(drawn, axis=0)
    tenths = of_tenths / np.maximum(of_tenths.sum(axis=1, keepdims=True), 1)
    bearing = np.array(
        [
            [_bearing(order, source, n, loss_bearing[source]) for source, n in zip(order.sources, row, strict=True)]
            for row in drawn[[-2, -1]].tolist()
        ]
    )  # (before the last tenth and at the end, sources)
    whole, last = bearing[1], bearing[1] - bearing[0]
    plans = {}
    for k, source in enumerate(order.sources):
        n, total = order.sequences[source], int(drawn[-1, k])
        limit = order.limits.get(source)
        plans[source] = SourcePlan(
            sequences=total,
            unique_sequences=n,
            epochs=total / n,
            max_epochs=order.curriculum.curriculum.limits.get(source),
            repeats_after=order.reached(source, n),
            limit_reached_after=None if limit is None else order.reached(source, limit),
            tenths=tenths[:, k].tolist(),
            loss_bearing=float(whole[k] / max(whole.sum(), 1)),
            loss_bearing_last_tenth=float(last[k] / max(last.sum(), 1)),
        )
    return plans


def _bearing(order: SampleOrder, source: str, n: int, of_sequences: np.ndarray | float) -> float:
    """Return the loss-bearing tokens in the first `n` sequences drawn from a source; exact if known per sequence."""
    if not isinstance(of_sequences, np.ndarray):
        return n * of_sequences
    epochs, rest = divmod(n, len(of_sequences))
    begun = of_sequences[order.first_of_epoch(source, epochs, rest)].sum() if rest else 0
    return float(epochs * of_sequences.sum() + begun)
