"""Orders whose weights are updated on the way: what was drawn stays, and no source is rounded away."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_modules import Curriculum, SampleOrder
from data_modules.order.sample_order import MixWeightUpdate, SourceExhaustedError
from tests.data_modules.order.test_sample_order import located, replayed


def order_of(names: list[str], *, steps: int, every: int, global_batch: int, **more: Any) -> SampleOrder:
    """Of even weights until the first update."""
    updates = more.pop("updates", ())
    sequences = more.pop("sequences", dict.fromkeys(names, 17))
    curriculum = Curriculum(
        keyframes={"start": {"at": 0, "weights": dict.fromkeys(names, 1)}}, ado={"every": every, "warmup": 0}, **more
    )
    resolved = curriculum.resolve(steps=steps, tokens_per_step=1)
    return SampleOrder(resolved, sequences=sequences, global_batch=global_batch, seed=5, updates=updates)


@st.composite
def updated_orders(draw: st.DrawFn, **more: Any) -> tuple[SampleOrder, list[SampleOrder]]:
    """An order with all its updates, and what it was before each of them."""
    names = [f"s{n}" for n in range(draw(st.integers(2, 8)))]
    global_batch, every = draw(st.integers(1, 9)), draw(st.integers(1, 7))
    order = order_of(names, steps=draw(st.integers(1, 60)), every=every, global_batch=global_batch, **more)
    before = []
    # zeros, and weights that leave several sources owed at once: what has to be carried on is then at its worst
    weight = st.sampled_from([0.0, 1.0]) | st.floats(0, 1)
    while order.settled < order.steps:
        before.append(order)
        values = draw(st.lists(weight, min_size=len(names), max_size=len(names)).filter(lambda w: sum(w[1:]) > 1e-3))
        units = np.floor(np.array(values) / sum(values) * 2**20)
        units[units.argmax()] += 2**20 - units.sum()
        order = order.updated(order.settled, dict(zip(names, (units / 2**20).tolist(), strict=True)))
    return order, before


@given(updated_orders())
def test_each_source_is_within_a_sequence_of_what_it_is_due(case: tuple[SampleOrder, list[SampleOrder]]) -> None:
    """Due counts on from the update before, with what could be carried; in between it grows by the weights exactly."""
    order, _ = case
    weights = dict(order.updates)
    current = dict.fromkeys(order.sources, 1 / len(order.sources))
    for step in range(order.steps):
        current = dict(weights.get(step, current))
        counts, due, then = order.counts(step + 1), order.due(step + 1), order.counts(step)
        assert sum(counts.values()) == (step + 1) * order.global_batch
        assert all(counts[s] >= then[s] and abs(counts[s] - due[s]) < 1 + 1e-6 for s in order.sources)
        grown = order.due_between(step, step + 1)
        assert grown == pytest.approx({s: order.global_batch * current[s] for s in order.sources}, abs=1e-6)
    assert sum(n for n, _ in order.stretches()) == order.steps
    assert order.due_between(0, order.steps) == pytest.approx(
        {s: sum(n * order.global_batch * w[s] for n, w in order.stretches()) for s in order.sources}, abs=1e-5
    )


@settings(max_examples=30)  # a brute force each
@given(updated_orders())
def test_an_update_changes_nothing_before_it(case: tuple[SampleOrder, list[SampleOrder]]) -> None:
    order, before = case
    whole = located(order)
    assert whole == replayed(order)
    for earlier in before:
        assert located(earlier)[: earlier.settled * order.global_batch] == whole[: earlier.settled * order.global_batch]
        assert (
            sum(earlier.counts(order.steps).values()) == order.steps * order.global_batch
        )  # the rest as if it went on so


@given(updated_orders(), st.data())
def test_an_order_rebuilt_from_its_updates_is_the_same(
    case: tuple[SampleOrder, list[SampleOrder]], data: st.DataObject
) -> None:
    """As at a resume, where all that is known is what the checkpoint says; and it goes on as it did."""
    order, _ = case
    known = data.draw(st.integers(0, len(order.updates)))
    more = {"steps": order.steps, "global_batch": order.global_batch, "updates": order.updates[:known]}
    rebuilt = order_of(list(order.sources), every=order.curriculum.curriculum.ado.every, **more)  # type: ignore[union-attr]
    for step, weights in order.updates[known:]:
        rebuilt = rebuilt.updated(step, weights)
    assert located(rebuilt) == located(order)
    assert [rebuilt.due(step) for step in range(order.steps + 1)] == [
        order.due(step) for step in range(order.steps + 1)
    ]


def random_updates(names: list[str], steps: range, *, rare: float, seed: int) -> list[MixWeightUpdate]:
    random = np.random.default_rng(seed)
    updates: list[MixWeightUpdate] = []
    for step in steps:
        shares = random.dirichlet(np.ones(len(names) - 1)) * (1 - rare)
        updates.append((step, dict(zip(names, [rare, *shares.tolist()], strict=True))))
    return updates


@pytest.mark.parametrize(("n_sources", "global_batch"), [(2, 1), (4, 8), (9, 2)])
def test_a_rare_source_is_not_rounded_away_by_many_updates(n_sources: int, global_batch: int) -> None:
    """0.01 x 8 x 10 steps = 0.8 sequences, and less than one of each other source too: all get what all weights add up to."""
    names = [f"s{n}" for n in range(n_sources)]
    updates = random_updates(names, range(10, 4000, 10), rare=0.01, seed=n_sources)
    order = order_of(names, steps=4000, every=10, global_batch=global_batch, updates=updates)
    exact = {s: Fraction(global_batch * 10, n_sources) for s in names}
    for _, weights in updates:
        for source, weight in weights.items():
            exact[source] += Fraction(weight) * 10 * global_batch
    counts = order.counts(4000)
    assert all(abs(counts[source] - exact[source]) < 2 for source in names)


def test_what_cannot_be_met_is_halved() -> None:
    """After two steps of one sequence two of four sources are half a sequence behind. Then they alone have weight, and with what
    they are owed both would be due a whole one in the next step."""
    names = ["a", "b", "c", "d"]
    order = order_of(names, steps=4, every=2, global_batch=1)
    drawn = order.counts(2)
    behind = [name for name in names if not drawn[name]]
    assert len(behind) == 2
    order = order.updated(2, {name: 0.5 * (name in behind) for name in names})
    assert order.due(2) == {name: drawn[name] + (0.25 if name in behind else -0.25) for name in names}
    assert order.counts(4) == dict.fromkeys(names, 1)


def test_two_thousand_updates_neither_recurse_nor_take_long() -> None:
    names = ["a", "b", "c"]
    updates = random_updates(names, range(1, 2001), rare=0.05, seed=0)
    order = order_of(names, steps=2002, every=1, global_batch=3, updates=updates)
    assert order.settled == 2001
    assert order.counts(2001) == order.updated(2001, updates[0][1]).counts(2001)
    assert sum(order.due_between(0, 2002).values()) == pytest.approx(3 * 2002)
    assert len(order.history) == 1


@given(
    updated_orders(
        max_epochs={"s0": 2.5}, on_exhausted="redistribute", sequences=dict.fromkeys([f"s{n}" for n in range(8)], 9)
    )
)
def test_a_limit_holds_through_updates(case: tuple[SampleOrder, list[SampleOrder]]) -> None:
    order, _ = case
    assert order.limits == {"s0": 22}
    assert all(order.counts(step)["s0"] <= 22 for step in range(order.steps + 1))


def test_a_run_that_must_run_out_is_refused_before_it_begins() -> None:
    with pytest.raises(SourceExhaustedError, match=r"at step \d+ no source with weight has sequences left"):
        order_of(
            ["a", "b"], steps=20, every=5, global_batch=4, max_epochs={"a": 1, "b": 1}, on_exhausted="redistribute"
        )


@pytest.mark.parametrize(
    ("step", "weights", "sentence"),
    [
        (4, {"a": 0.5, "b": 0.5}, "step of the update is 4: it must be 5"),
        (5, {"a": 1.0}, r"the weights are {'a': 1\.0}: they must be shares of a, b"),
        (5, {"a": 0.5, "b": 0.6}, "they must be shares of a, b"),
        (5, {"a": -0.5, "b": 1.5}, "they must be shares of a, b"),
    ],
)
def test_what_is_no_update_is_refused(step: int, weights: dict[str, float], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        order_of(["a", "b"], steps=20, every=5, global_batch=4).updated(step, weights)


def test_the_weights_of_a_trunk_are_not_those_of_the_policy() -> None:
    """Else a branch off a run of one source alone would be drawn back to that source by its first update."""
    trunk = Curriculum(keyframes={"start": {"at": 0, "weights": {"s0": 1}}}).resolve(steps=20, tokens_per_step=1)
    sequences = {"s0": 17, "s1": 17}
    alone = SampleOrder(trunk, sequences=sequences, global_batch=4, seed=5)
    even = {"start": {"at": 0, "weights": {"s0": 1, "s1": 1}}}
    rules = Curriculum(keyframes=even, ado={"every": 3, "warmup": 0}).resolve(steps=20, tokens_per_step=1)
    branch = SampleOrder(rules, sequences=sequences, global_batch=4, seed=5, after=(alone, 10))
    assert branch.stretches() == [(2, {"s0": 0.5, "s1": 0.5})]  # of the steps 10 and 11
    assert branch.counts(10) == {"s0": 40, "s1": 0}


def test_a_floor_of_what_has_no_weight_is_refused() -> None:
    mixes = {"base": {"s0": 1}, "target": {"s1": 1}}
    for floor in ({"s1": 0.1}, {"target": 0.1}):
        with pytest.raises(
            ValueError, match=r"curriculum\.ado\.floor\.\w+ is 0\.1: it must be 0 for sources without weight"
        ):
            Curriculum(
                keyframes={"start": {"at": 0, "weights": {"base": 1}}},
                mixes=mixes,
                ado={"every": 3, "warmup": 0, "floor": floor},
            )
