"""Runs of a million steps: planned in little memory, and nowhere in them is anything dearer than at the beginning."""

import tracemalloc
from unittest import mock

import numpy as np
import pytest

from data_modules import Curriculum, ResolvedCurriculum, SampleOrder

STEPS, GLOBAL_BATCH = 10**6, 512
NAMES = [f"s{k}" for k in range(20)]


@pytest.fixture(scope="module")
def long_run() -> tuple[SampleOrder, int]:
    """20 sources whose weights move all the time, one of them rare and half of them limited; and the bytes it took to plan."""
    random = np.random.default_rng(0)
    frames = {
        f"k{n}": {"at": n / 8, "weights": dict(zip(NAMES, random.random(20).tolist(), strict=True))} for n in range(8)
    }
    for frame in frames.values():
        frame["weights"]["s0"] = 0.0003
    curriculum = Curriculum(
        keyframes=frames, interpolation="cosine", max_epochs=dict.fromkeys(NAMES[:10], 4), on_exhausted="redistribute"
    )
    sequences = dict.fromkeys(NAMES, 5_000_000)
    tracemalloc.start()
    resolved = curriculum.resolve(steps=STEPS, tokens_per_step=1)
    order = SampleOrder(resolved, sequences=sequences, global_batch=GLOBAL_BATCH, seed=0)
    order.drawn_before(np.linspace(0, STEPS, 11).astype(np.int64))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return order, peak


def test_a_million_steps_are_planned_in_200_megabytes(long_run: tuple[SampleOrder, int]) -> None:
    assert long_run[1] < 200e6


def test_every_source_is_within_two_sequences_of_its_share(long_run: tuple[SampleOrder, int]) -> None:
    order = long_run[0]
    for step in np.random.default_rng(1).integers(0, STEPS + 1, size=40).tolist():
        counts, due = order.counts(step), order.due(step)
        assert sum(counts.values()) == step * GLOBAL_BATCH
        assert all(abs(counts[source] - due[source]) < 2 for source in NAMES)
    rare = order.counts(STEPS)["s0"]
    assert rare > 0
    assert all(order.counts(STEPS)[source] <= limit for source, limit in order.limits.items())


def test_locating_costs_the_same_everywhere(long_run: tuple[SampleOrder, int]) -> None:
    """In steps whose weights are looked at, which is what a schedule is made of."""
    order = long_run[0]
    costs = []
    for step in (0, 1, 499_999, STEPS - 1):
        order._settled[0]._blocks.clear()
        with mock.patch.object(
            ResolvedCurriculum, "weights_at", autospec=True, side_effect=ResolvedCurriculum.weights_at
        ) as looked_at:
            order.locate_many(np.arange(step * GLOBAL_BATCH, (step + 1) * GLOBAL_BATCH))
        costs.append(sum(len(call.args[1]) for call in looked_at.call_args_list))
    assert max(costs) <= 2 * order._settled[0].shares.block < 600
