"""Sources that reach their limit of epochs, and orders that go on from another."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from data_modules import Curriculum, SampleOrder
from data_modules.order import exact_shares
from data_modules.order.sample_order import SourceExhaustedError
from tests.data_modules.order.test_sample_order import blocks, located, orders, resolved_curricula


def shares_with_limits(order: SampleOrder) -> list[list[Fraction]]:
    """Due by the end of each step, in exact arithmetic: who has reached its limit leaves its share to the others."""
    limits = [order.limits.get(source) for source in order.sources]
    totals = [Fraction(0)] * len(order.sources)
    rows = []
    for step in range(order.steps):
        weights = [Fraction(weight) for weight in order.curriculum.weights(step).values()]
        missing = Fraction(order.global_batch)
        while missing:
            left = [
                w if limit is None or total < limit else 0
                for w, limit, total in zip(weights, limits, totals, strict=True)
            ]
            parts = [missing * w / sum(left) for w in left]
            # pour until the first of them is full, then share what is missing among the others
            room = [
                (limit - total) / part
                for limit, total, part in zip(limits, totals, parts, strict=True)
                if limit is not None and part
            ]
            fill = min([Fraction(1), *room])
            totals = [total + fill * part for total, part in zip(totals, parts, strict=True)]
            missing *= 1 - fill
        rows.append(totals)
    return rows


@settings(deadline=None)
@given(orders(on_exhausted="redistribute"))
def test_who_reaches_a_limit_leaves_its_share_to_the_others(order: SampleOrder) -> None:
    for step, due in enumerate(shares_with_limits(order), start=1):
        counts = list(order.counts(step).values())
        assert sum(counts) == step * order.global_batch
        for source, count, share in zip(order.sources, counts, due, strict=True):
            assert abs(count - share) < 2 + 1e-5
            assert count <= order.limits.get(source, count)
        assert list(order.due(step).values()) == pytest.approx([float(share) for share in due], abs=1e-5)


@settings(deadline=None)
@given(orders(on_exhausted="spread"))
def test_a_limit_that_is_spread_is_kept_and_used(order: SampleOrder) -> None:
    drawn = order.counts(order.steps)
    for source, limit in order.limits.items():
        assert drawn[source] <= limit


def test_spread_is_unimax() -> None:
    """Shares as equal as the limits allow, from the first step to the last."""
    curriculum = Curriculum(
        keyframes={"all": {"at": 0, "weights": {"all": 1}}},
        mixes={"base": {"a": 1, "b": 1}, "target": {"c": 5, "d": 1}},
        max_epochs={"all": 4},
        on_exhausted="spread",
    ).resolve(steps=1000, tokens_per_step=1)
    order = SampleOrder(curriculum, sequences={"a": 90_000, "b": 100, "c": 300, "d": 90_000}, global_batch=10, seed=0)
    assert order.counts(1000) == pytest.approx({"a": 4200, "b": 400, "c": 1200, "d": 4200}, abs=1)
    assert order.counts(500) == pytest.approx({"a": 2100, "b": 200, "c": 600, "d": 2100}, abs=2)


def test_factors_that_spread_do_not_hang_on_the_last_bit() -> None:
    """A machine that adds up otherwise must come to the same factors, also for halves and thirds."""
    for share in (1 / 2, 1 / 3, 1 / 4, 0.29):
        found = set()
        for nudge in (-1, 0, 1):
            weight = 1.0 + nudge * 2**-52
            frames = {"all": {"at": 0, "weights": {"a": weight, "b": 1, "c": 1}}}
            curriculum = Curriculum(keyframes=frames, on_exhausted="spread").resolve(steps=300, tokens_per_step=1)
            factors = exact_shares.spread_over_sources(
                curriculum, global_batch=8, first_step=0, limits={"a": round(800 * share)}
            )
            found.add(tuple(factors.items()))
        assert len(found) == 1


@pytest.mark.parametrize("on_exhausted", ["redistribute", "spread"])
def test_a_limit_beyond_the_run_is_none(on_exhausted: Any) -> None:
    options = {"keyframes": {"all": {"at": 0, "weights": {"a": 1, "b": 2}}}, "on_exhausted": on_exhausted}
    counts = []
    for limits in ({}, {"a": 1e9, "b": 3e8}):
        curriculum = Curriculum(**options, max_epochs=limits).resolve(steps=50, tokens_per_step=1)
        order = SampleOrder(curriculum, sequences={"a": 10, "b": 10}, global_batch=8, seed=0)
        counts.append([order.counts(step) for step in range(51)])
    assert counts[0] == counts[1]


def test_a_limit_in_decimals_is_whole_where_it_looks_whole() -> None:
    curriculum = Curriculum(keyframes={"all": {"at": 0, "weights": {"a": 1}}}, max_epochs={"a": 0.29})
    resolved = curriculum.resolve(steps=29, tokens_per_step=1)
    assert SampleOrder(resolved, sequences={"a": 100}, global_batch=1, seed=0).limits == {"a": 29}


def test_nothing_left_is_refused() -> None:
    frames = {"start": {"at": 0, "weights": {"a": 1, "b": 1}}, "late": {"at": 0.5, "weights": {"a": 1}}}
    for how in ("redistribute", "spread"):
        curriculum = Curriculum(keyframes=frames, max_epochs={"a": 2, "b": 2}, on_exhausted=how, interpolation="step")
        with pytest.raises(
            SourceExhaustedError, match=r"at step \d+ no source with weight has sequences left \(keyframe late\)"
        ):
            SampleOrder(
                curriculum.resolve(steps=20, tokens_per_step=1), sequences={"a": 10, "b": 90}, global_batch=4, seed=0
            )


@settings(deadline=None)
@given(st.data())
def test_an_order_goes_on_from_another(data: st.DataObject) -> None:
    """The first steps are the other's; then the new weights hold, counted from there; no sequence of an epoch comes twice."""
    steps = data.draw(st.integers(2, 40))
    sequences = {f"s{n}": data.draw(st.integers(1, 40)) for n in range(12)}
    at = data.draw(st.integers(1, steps - 1))
    options = {"sequences": sequences, "global_batch": data.draw(st.integers(1, 12)), "seed": 3}
    with blocks(data.draw(st.sampled_from([2, 5, 4096]))):
        trunk = SampleOrder(data.draw(resolved_curricula(steps=steps)), **options)
        tail = data.draw(resolved_curricula(steps=data.draw(st.integers(at + 1, 60)), on_exhausted="redistribute"))
        try:
            branch = SampleOrder(tail, **options, after=(trunk, at))
        except SourceExhaustedError:
            reject()
    n = options["global_batch"]
    assert located(branch)[: at * n] == located(trunk)[: at * n]
    assert set(trunk.sources) <= set(branch.sources)
    whole = located(branch)
    assert len(set(whole)) == len(whole) == branch.steps * n
    for step in range(branch.steps + 1):
        counts, due = branch.counts(step), branch.due(step)
        assert sum(counts.values()) == step * n
        assert all(abs(counts[source] - due[source]) < 2 + 1e-5 for source in branch.sources)
        if step <= at:
            assert {s: c for s, c in counts.items() if c} == {s: c for s, c in trunk.counts(step).items() if c}
    for source, limit in branch.limits.items():
        assert branch.counts(branch.steps)[source] <= max(limit, trunk.counts(at).get(source, 0))
    for index in range(at, branch.steps):
        grown = {s: branch.due(index + 1)[s] - branch.due(index)[s] for s in branch.sources}
        weights = tail.weights(index)
        if not branch.limits:
            assert grown == pytest.approx({s: n * weights.get(s, 0.0) for s in branch.sources}, abs=1e-5)


def test_an_order_goes_on_only_with_the_same_units() -> None:
    curriculum = Curriculum(keyframes={"all": {"at": 0, "weights": {"a": 1}}}).resolve(steps=9, tokens_per_step=1)
    trunk = SampleOrder(curriculum, sequences={"a": 5}, global_batch=4, seed=0)
    for other in ({"seed": 1}, {"global_batch": 2}, {"sequences": {"a": 6}}):
        with pytest.raises(ValueError, match="global batch, seed and sequences must equal"):
            SampleOrder(curriculum, **{"sequences": {"a": 5}, "global_batch": 4, "seed": 0} | other, after=(trunk, 3))


def test_when_a_count_is_reached_and_what_an_epoch_begins_with() -> None:
    curriculum = Curriculum(keyframes={"all": {"at": 0, "weights": {"a": 1, "b": 1}}}).resolve(
        steps=50, tokens_per_step=1
    )
    order = SampleOrder(curriculum, sequences={"a": 30, "b": 7}, global_batch=4, seed=0)
    assert order.reached("a", 30) == 15
    assert order.reached("a", 101) is None
    epoch, n = divmod(order.counts(50)["b"], 7)
    last = [sequence for source, e, sequence in located(order) if (source, e) == ("b", epoch)]
    assert sorted(order.first_of_epoch("b", epoch, n).tolist()) == sorted(last)
    assert np.unique(order.first_of_epoch("a", 0, 30)).tolist() == list(range(30))
