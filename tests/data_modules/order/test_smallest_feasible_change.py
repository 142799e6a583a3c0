"""The smallest change: enough, not much more than enough, and of nothing else."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from data_modules import Curriculum, SampleOrder
from data_modules.order.sample_order import SourceExhaustedError
from data_modules.order.smallest_feasible_change import smallest_change

STEPS, BATCH, SEQUENCES = 300, 64, 1000  # of each source
Section = dict[str, Any]
weight = st.floats(0.02, 0.2)


def plan(curriculum: Curriculum) -> SampleOrder:
    return SampleOrder(
        curriculum.resolve(steps=STEPS, tokens_per_step=1),
        sequences=dict.fromkeys(curriculum.sources, SEQUENCES),
        global_batch=BATCH,
        seed=0,
    )


def refusal(section: Section, by: Callable[[Curriculum], object] = plan) -> SourceExhaustedError:
    with pytest.raises(SourceExhaustedError) as refused:
        by(Curriculum(**section))
    return refused.value


def typed(section: Section, settings_: list[str], *, times: float = 1.0) -> Section:
    """The section after these settings, which all were there before; their numbers multiplied."""
    changed = copy.deepcopy(section)
    for setting in settings_:
        path, _, value = setting.removeprefix("curriculum.").partition("=")
        parent, key = path.rsplit(".", 1)
        assert key in at(changed, parent)
        at(changed, parent)[key] = float(value) * times
    return changed


def at(section: Section, path: str) -> Any:
    node: Any = section
    for key in path.split("."):
        node = node[key]
    return node


def significant_digits(value: str) -> int:
    return len(value.partition("e")[0].replace(".", "").strip("0"))


@st.composite
def sections(draw: st.DrawFn, *, most_limits: int = 1) -> tuple[Section, list[str]]:
    """Curricula whose weights, of keyframes and of mixes, ask for more of some sources than the limits allow; and those sources.

    At least half of each step is `web`, which has no limit.
    """
    mixes = {"base": {"web": 1.0, "a": draw(weight)}, "target": {"web": 1.0, "a": draw(weight), "b": draw(weight)}}
    kinds = [
        lambda: {"web": 1.0, "a": draw(weight), "b": draw(weight), "c": draw(weight)},
        lambda: {"base": 1.0, "target": draw(weight)},
        lambda: {"target": 1.0, "c": draw(weight)},
        lambda: {"web": 1.0},
    ]
    points = sorted(draw(st.sets(st.integers(0, STEPS - 1), min_size=1, max_size=4)))
    section: Section = {
        "unit": "steps",
        "interpolation": draw(st.sampled_from(["step", "linear", "cosine"])),
        "keyframes": {f"k{at}": {"at": at, "weights": draw(st.sampled_from(kinds))()} for at in points},
        "mixes": mixes,
        "replay": draw(st.sampled_from([{}, {"base": 0.1}, {"a": 0.05}])),
        "max_epochs": {},
        "on_exhausted": "error",
    }
    if "a" in section["replay"]:
        assume("a" in Curriculum(**section | {"replay": {}}).sources)
    drawn = plan(Curriculum(**section)).counts(STEPS)
    much = [source for source, n in drawn.items() if source != "web" and n > 600]
    assume(much)
    limited = much[: draw(st.integers(1, most_limits))]
    limits = {source: drawn[source] * draw(st.floats(0.3, 0.95)) / SEQUENCES for source in limited}
    return section | {"max_epochs": limits}, limited


@settings(deadline=None, max_examples=40)
@given(sections())
def test_what_is_typed_makes_the_plan_hold_and_two_percent_more_does_not(chosen: tuple[Section, list[str]]) -> None:
    section, (source,) = chosen
    change = smallest_change(section, refusal(section), plan)
    assert change
    plan(Curriculum(**typed(section, change)))
    assert refusal(typed(section, change, times=1.02)).source == source


@settings(deadline=None, max_examples=20)
@given(sections(most_limits=3))
def test_sources_that_are_too_much_together_are_mended_together(chosen: tuple[Section, list[str]]) -> None:
    """Less of one is more of the others."""
    section, limited = chosen
    change = smallest_change(section, refusal(section), plan)
    plan(Curriculum(**typed(section, change)))
    for source in limited:
        of_source = [setting for setting in change if f".{source}=" in setting]
        more = typed(section, change) | {"on_exhausted": "repeat"}
        drawn = plan(Curriculum(**typed(more, of_source, times=1.02))).counts(STEPS)[source]
        assert drawn > section["max_epochs"][source] * SEQUENCES


@settings(deadline=None, max_examples=20)
@given(sections())
def test_the_weights_of_that_source_alone_are_lowered_all_alike_and_where_they_count(
    chosen: tuple[Section, list[str]],
) -> None:
    section, (source,) = chosen
    section["mixes"]["unused"] = {"a": 1.0, "b": 1.0, "c": 1.0}
    before = copy.deepcopy(section)
    factors = []
    for setting in smallest_change(section, refusal(section), plan):
        path, _, value = setting.removeprefix("curriculum.").partition("=")
        place, name = path.rsplit(".", 1)
        assert name == source
        assert place != "mixes.unused"
        assert place.split(".")[0] in ("keyframes", "mixes", "replay")
        assert significant_digits(value) <= 3
        factors.append(float(value) / at(section, path))
    assert 0 < min(factors) <= max(factors) < 1
    assert max(factors) / min(factors) < 1.0101  # but for rounding to three digits
    assert section == before


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(0.05, 1), min_size=2, max_size=4), st.sampled_from(["redistribute", "spread"]), st.data())
def test_where_everything_ends_the_limits_are_raised_just_enough(
    weights: list[float], on_exhausted: str, data: st.DataObject
) -> None:
    weights_ = {f"s{n}": w for n, w in enumerate(weights)}
    room = STEPS * BATCH * data.draw(st.floats(0.1, 0.95)) / SEQUENCES / len(weights)
    section: Section = {
        "keyframes": {"start": {"at": 0, "weights": {"everything": 1}}, "late": {"at": 0.5, "weights": weights_}},
        "mixes": {"everything": weights_},
        "replay": {},
        "max_epochs": {"everything": room} if data.draw(st.booleans()) else dict.fromkeys(weights_, room),
        "on_exhausted": on_exhausted,
    }
    change = smallest_change(section, refusal(section), plan)
    assert {setting.partition("=")[0] for setting in change} == {
        f"curriculum.max_epochs.{n}" for n in section["max_epochs"]
    }
    assert all(significant_digits(setting.partition("=")[2]) <= 3 for setting in change)
    plan(Curriculum(**typed(section, change)))
    assert refusal(typed(section, change, times=0.98)).source is None


def test_what_no_weight_can_mend_needs_a_higher_limit() -> None:
    """A source that is alone, and one that is a part of `all`, which asks for no weights."""
    rest: Section = {"replay": {}, "max_epochs": {"a": 2}, "mixes": {}}
    alone = rest | {"keyframes": {"start": {"at": 0, "weights": {"a": 1}}}}
    (change,) = smallest_change(alone, refusal(alone), plan)
    plan(Curriculum(**typed(alone, [change])))
    assert change.startswith("curriculum.max_epochs.a=")
    of_all = rest | {"keyframes": {"start": {"at": 0, "weights": {"all": 1}}}, "mixes": {"base": {"a": 1, "b": 9}}}
    (change,) = smallest_change(of_all, refusal(of_all), plan)
    plan(Curriculum(**typed(of_all, [change])))
    assert refusal(typed(of_all, [change], times=0.98)).source == "a"


@pytest.mark.parametrize("kind", ["step", "linear"])
def test_of_a_run_that_is_begun_only_later_keyframes_are_lowered(kind: str) -> None:
    weights = {"web": 1.0, "a": 0.2}
    section: Section = {
        "unit": "steps",
        "interpolation": kind,
        "keyframes": {f"k{at}": {"at": at, "weights": dict(weights)} for at in (0, 100, 200, 250)},
        "mixes": {},
        "replay": {},
        "max_epochs": {"a": 2.6},
        "on_exhausted": "error",
    }
    done = np.arange(110)
    then = Curriculum(**section).resolve(steps=STEPS, tokens_per_step=1).weights_at(done)

    def plan_on(curriculum: Curriculum) -> SampleOrder:
        now = curriculum.resolve(steps=STEPS, tokens_per_step=1).weights_at(done)
        if not np.array_equal(now, then):
            raise ValueError("only later weights may change")
        return plan(curriculum)

    change = smallest_change(section, refusal(section, plan_on), plan_on)
    later = ["k200", "k250"] if kind == "step" else ["k250"]  # the line to k200 has begun
    assert [setting.split(".")[2] for setting in change] == later
    plan_on(Curriculum(**typed(section, change)))
    assert refusal(typed(section, change, times=1.02)).source == "a"
