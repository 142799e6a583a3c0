"""The laws of the order, for any number of sources and however their weights move."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from data_modules import Curriculum, ResolvedCurriculum, SampleOrder
from data_modules.order import exact_shares
from data_modules.order.keyed_permutation import permutation_key, permute
from data_modules.order.sample_order import SourceExhaustedError


@contextmanager
def blocks(n: int) -> Iterator[None]:
    """Schedule even short runs in at most `n` blocks, as only runs of more than 4,096 steps are."""
    with mock.patch.object(exact_shares, "_BLOCKS", n), mock.patch.object(exact_shares, "_AT_ONCE", 16):
        yield


@st.composite
def resolved_curricula(draw: st.DrawFn, *, steps: int | None = None, **options: str) -> ResolvedCurriculum:
    names = [f"s{n}" for n in range(draw(st.integers(1, 12)))]
    steps = steps or draw(st.integers(1, 60))
    points = sorted(draw(st.sets(st.integers(0, steps), min_size=1, max_size=8)))
    weight = st.sampled_from([0.0, 0.0003, 0.01, 0.3, 1.0]) | st.floats(0, 1)
    frames = {
        f"k{at}": {"at": at, "weights": {name: draw(weight) for name in names} | {"s0": draw(st.floats(0.001, 1))}}
        for at in points
    }
    caps = draw(st.dictionaries(st.sampled_from(names), st.floats(0.1, 3))) if options else {}
    curriculum = Curriculum(
        unit="steps",
        interpolation=draw(st.sampled_from(["step", "linear", "cosine"])),
        keyframes=frames,
        max_epochs=caps,
        **options,
    )
    return curriculum.resolve(steps=steps, tokens_per_step=1)


@st.composite
def orders(draw: st.DrawFn, **options: str) -> SampleOrder:
    """Of any curriculum, in any number of blocks; with `on_exhausted=…` also of limits that bind."""
    curriculum = draw(resolved_curricula(**options))
    with blocks(draw(st.sampled_from([1, 2, 3, 7, 4096]))):
        try:
            return SampleOrder(
                curriculum,
                sequences={f"s{n}": draw(st.integers(1, 40)) for n in range(12)},
                global_batch=draw(st.integers(1, 24)),
                seed=draw(st.integers(0, 2**32)),
            )
        except SourceExhaustedError as error:
            if error.source is not None:
                raise
            reject()  # no source that has weight has anything left


def shares_by_brute_force(order: SampleOrder) -> list[list[Fraction]]:
    """Sequences due to each source by the end of each step, in exact arithmetic."""
    totals = [Fraction(0)] * len(order.sources)
    rows = []
    for step in range(order.steps):
        shares = [Fraction(share) for share in order.curriculum.weights(step).values()]
        totals = [total + order.global_batch * share / sum(shares) for total, share in zip(totals, shares, strict=True)]
        rows.append(totals)
    return rows


def replayed(order: SampleOrder) -> list[tuple[str, int, int]]:
    """The run's sequences in their order, by brute force: step after step, epoch after epoch, nothing but counters."""
    drawn = dict.fromkeys(order.sources, 0)
    run = []
    for step in range(order.steps):
        before, after = order.counts(step), order.counts(step + 1)
        sources = [source for source in order.sources for _ in range(after[source] - before[source])]
        of_step = []
        for source in sources:
            epoch, place = divmod(drawn[source], order.sequences[source])
            of_step.append((source, epoch, shuffled(order.sequences[source], order.seed, source, epoch)[place]))
            drawn[source] += 1
        run += [of_step[place] for place in shuffled(order.global_batch, order.seed, "slots", step)]
    return run


def located(order: SampleOrder) -> list[tuple[str, int, int]]:
    """(source, epoch, sequence) of the whole run."""
    columns = order.locate_many(np.arange(order.steps * order.global_batch))
    return [(order.sources[k], e, s) for k, e, s in zip(*(column.tolist() for column in columns), strict=True)]


@lru_cache(maxsize=1000)
def shuffled(n: int, *key: object) -> list[int]:
    return permute(np.arange(n), np.full(n, n), np.tile(permutation_key(*key), (n, 1))).tolist()


@settings(deadline=None)
@given(orders())
def test_every_source_is_within_two_sequences_of_its_share_at_every_step(order: SampleOrder) -> None:
    """At the borders of blocks, which in runs of up to 4,096 steps every step is, it is the share rounded down or up."""
    borders = set(order._settled[0].shares.borders.tolist())
    for step, due in enumerate(shares_by_brute_force(order), start=1):
        counts = list(order.counts(step).values())
        assert sum(counts) == step * order.global_batch
        for count, share in zip(counts, due, strict=True):
            assert abs(count - share) < (1 if step in borders else 2) + 1e-6
        assert list(order.due(step).values()) == pytest.approx([float(share) for share in due], abs=1e-6)
        assert all(now >= before for now, before in zip(counts, order.counts(step - 1).values(), strict=True))


@settings(deadline=None)
@given(orders())
def test_the_order_is_that_of_a_replay(order: SampleOrder) -> None:
    """`locate` looks up what brute force arrives at."""
    assert located(order) == replayed(order)


@settings(deadline=None)
@given(orders())
def test_every_sequence_of_an_epoch_comes_once_and_in_order_of_epochs(order: SampleOrder) -> None:
    run = located(order)
    drawn = Counter(source for source, _, _ in run)
    assert drawn == Counter({s: n for s, n in order.counts(order.steps).items() if n})
    for source, n in drawn.items():
        length = order.sequences[source]
        seen = Counter((epoch, sequence) for s, epoch, sequence in run if s == source)
        assert set(seen.values()) == {1}
        assert all(0 <= sequence < length for _, sequence in seen)
        whole, rest = divmod(n, length)
        assert Counter(epoch for epoch, _ in seen) == Counter(
            {e: length for e in range(whole)} | ({whole: rest} if rest else {})
        )


@settings(deadline=None)
@given(orders(), st.data())
def test_locating_many_is_locating_each_and_steps_hold_their_counts(order: SampleOrder, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, order.steps - 1))
    indices = np.arange(step * order.global_batch, (step + 1) * order.global_batch)
    many = list(zip(*(values.tolist() for values in order.locate_many(indices)), strict=True))
    assert [(order.sources[k], epoch, sequence) for k, epoch, sequence in many] == [order.locate(i) for i in indices]
    before, after = order.counts(step), order.counts(step + 1)
    assert Counter(order.sources[k] for k, _, _ in many) == Counter(
        {s: after[s] - before[s] for s in before if after[s] > before[s]}
    )


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**63))
def test_a_keyed_permutation_is_one(n: int, seed: int) -> None:
    keys = np.tile(permutation_key(seed, "a", 0), (n, 1))
    assert sorted(permute(np.arange(n), np.full(n, n), keys)) == list(range(n))


def resolved(weights: dict[str, float], steps: int = 50) -> ResolvedCurriculum:
    curriculum = Curriculum(keyframes={"all": {"at": 0, "weights": weights}})
    return curriculum.resolve(steps=steps, tokens_per_step=1)


def test_epochs_and_seeds_differ_and_nothing_else_does() -> None:
    sequences = {"a": 100, "b": 100}
    order = SampleOrder(resolved({"a": 0.9, "b": 0.1}), sequences=sequences, global_batch=8, seed=1)
    again = SampleOrder(resolved({"a": 9, "b": 1}), sequences=sequences, global_batch=8, seed=1)
    other = SampleOrder(resolved({"a": 0.9, "b": 0.1}), sequences=sequences, global_batch=8, seed=2)
    assert located(order) == located(again) != located(other)
    first, second = ([s for name, e, s in located(order) if name == "a" and e == epoch] for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(100))
    moved = np.mean(np.array(first) != np.array(second))
    assert moved > 0.9  # two epochs in different order
    slots = [tuple(order.locate(8 * step + slot)[0] for slot in range(8)) for step in range(50)]
    assert len(set(slots)) > 1  # a source has no fixed place in the step


def test_a_rare_source_is_not_rounded_away() -> None:
    order = SampleOrder(resolved({"a": 1, "rare": 0.0003}, 5000), sequences={"a": 9, "rare": 9}, global_batch=4, seed=0)
    assert order.counts(5000)["rare"] in (5, 6)  # 5,000 steps x 4 x 0.0003 / 1.0003 = 5.998


def test_a_longer_run_of_a_constant_mix_begins_as_the_shorter_one() -> None:
    weights = {"a": 0.31, "b": 0.33, "c": 0.36}
    sequences = dict.fromkeys(weights, 7)
    short, long = (SampleOrder(resolved(weights, n), sequences=sequences, global_batch=2, seed=0) for n in (40, 400))
    assert located(short) == located(long)[:80]


def test_a_limit_of_epochs_is_exact() -> None:
    frames = {"all": {"at": 0, "weights": {"a": 1, "b": 1}}}
    sequences = {"a": 10, "b": 1000}
    for on_exhausted, allowed in (("error", 2), ("repeat", 0.5)):
        curriculum = Curriculum(keyframes=frames, max_epochs={"a": allowed}, on_exhausted=on_exhausted)
        order = SampleOrder(curriculum.resolve(steps=5, tokens_per_step=1), sequences=sequences, global_batch=8, seed=0)
        assert order.counts(5) == {"a": 20, "b": 20}  # exactly two epochs of a
    curriculum = Curriculum(keyframes=frames, max_epochs={"a": 1.9})
    with pytest.raises(
        ValueError, match=r"max_epochs\.a is 1\.9, and the plan draws 2\.00 epochs .* after step 5 of 5, keyframe all"
    ):
        SampleOrder(curriculum.resolve(steps=5, tokens_per_step=1), sequences=sequences, global_batch=8, seed=0)


def test_what_cannot_be_located_is_refused() -> None:
    with pytest.raises(ValueError, match="source b has no training sequence of this length"):
        SampleOrder(resolved({"a": 1, "b": 1}), sequences={"a": 1, "b": 0}, global_batch=1, seed=0)
    order = SampleOrder(resolved({"a": 1}), sequences={"a": 1}, global_batch=1, seed=0)
    for i in (-1, 50):
        with pytest.raises(IndexError, match="are outside the run's 50 steps"):
            order.locate(i)
