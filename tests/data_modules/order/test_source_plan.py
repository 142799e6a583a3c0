"""What a run draws of each source, counted again by replaying all of it."""

import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from data_modules import SampleOrder
from data_modules.order.sample_order import SourceExhaustedError
from data_modules.order.source_plan import plan_sources
from tests.data_modules.order.test_sample_order import orders, replayed, resolved_curricula


@st.composite
def branched_orders(draw: st.DrawFn) -> SampleOrder:
    """That go on from another, with another curriculum and often with more or fewer steps."""
    trunk = draw(orders())
    at = draw(st.integers(1, trunk.steps))
    tail = draw(resolved_curricula(steps=draw(st.integers(at + 1, 80)), on_exhausted="redistribute"))
    sequences = {source: trunk.sequences.get(source, 9) for source in (*trunk.sources, *tail.sources)}
    try:
        return SampleOrder(
            tail, sequences=sequences, global_batch=trunk.global_batch, seed=trunk.seed, after=(trunk, at)
        )
    except SourceExhaustedError:
        reject()


any_order = (
    orders() | orders(on_exhausted="repeat") | orders(on_exhausted="redistribute") | orders(on_exhausted="spread")
)


def counts_of(data: st.DataObject, order: SampleOrder) -> dict[str, np.ndarray]:
    """Loss-bearing targets of each training sequence: those of a prepared source."""
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    return {source: random.integers(0, 33, n) for source, n in order.sequences.items()}


@settings(deadline=None)
@given(any_order | branched_orders(), st.data())
def test_the_plan_is_the_sum_over_the_replayed_run(order: SampleOrder, data: st.DataObject) -> None:
    bearing = counts_of(data, order)
    run = replayed(order)
    borders = [round(Fraction(order.steps * n, 10)) * order.global_batch for n in range(11)]
    in_run, in_tenth = Counter[str](), Counter[str]()
    for i, (source, _, sequence) in enumerate(run):
        in_run[source] += int(bearing[source][sequence])
        in_tenth[source] += int(bearing[source][sequence]) * (i >= borders[-2])
    plans = plan_sources(order, bearing)
    assert list(plans) == list(order.sources)
    for source, plan in plans.items():
        drawn = [(i, sequence) for i, (s, _, sequence) in enumerate(run) if s == source]
        assert plan.sequences == len(drawn)
        assert plan.unique_sequences == order.sequences[source]
        assert plan.epochs == len(drawn) / order.sequences[source]
        for begin, end, share in zip(borders, borders[1:], plan.tenths, strict=False):
            assert share == sum(begin <= i < end for i, _ in drawn) / max(end - begin, 1)
        assert plan.loss_bearing == in_run[source] / max(in_run.total(), 1)
        assert plan.loss_bearing_last_tenth == in_tenth[source] / max(in_tenth.total(), 1)


@settings(deadline=None)
@given(any_order | branched_orders(), st.data())
def test_the_first_repeat_and_the_limit_come_when_the_plan_says(order: SampleOrder, data: st.DataObject) -> None:
    run = replayed(order)
    limits = order.curriculum.curriculum.max_epochs
    for source, plan in plan_sources(order, counts_of(data, order)).items():
        seen: set[int] = set()
        after = None  # the steps in which the last sequence comes that had not come yet
        for i, (s, _, sequence) in enumerate(run):
            if s == source and sequence not in seen:
                seen.add(sequence)
                after = i // order.global_batch + 1
        assert plan.repeats_after == (after if len(seen) == order.sequences[source] else None)
        limit = limits.get(source) if source in order.curriculum.sources else None
        assert plan.max_epochs == limit
        allowed = None if limit is None else math.floor(round(limit * order.sequences[source], 6))
        reached = [i for i, (s, _, _) in enumerate(run) if s == source][allowed - 1 : allowed] if allowed else []
        if allowed:
            assert plan.limit_reached_after == (reached[0] // order.global_batch + 1 if reached else None)


@settings(deadline=None)
@given(any_order, st.data())
def test_an_expected_mean_plans_as_sequences_that_all_have_it(order: SampleOrder, data: st.DataObject) -> None:
    """A source that is not prepared beside others that are."""
    means = {source: data.draw(st.integers(0, 32)) for source in order.sources}
    known = {source: np.full(order.sequences[source], mean) for source, mean in means.items()}
    expected = {source: float(mean) if data.draw(st.booleans()) else known[source] for source, mean in means.items()}
    assert plan_sources(order, expected) == plan_sources(order, known)


@settings(deadline=None)
@given(any_order, st.data())
def test_shares_add_up_to_one(order: SampleOrder, data: st.DataObject) -> None:
    plans = plan_sources(order, {source: counts + 1 for source, counts in counts_of(data, order).items()}).values()
    assert sum(plan.loss_bearing for plan in plans) == pytest.approx(1, abs=1e-12)
    assert sum(plan.sequences for plan in plans) == order.steps * order.global_batch
    for of_sources in zip(*(plan.tenths for plan in plans), strict=True):
        assert sum(of_sources) == pytest.approx(1, abs=1e-12) or (order.steps < 10 and not any(of_sources))
