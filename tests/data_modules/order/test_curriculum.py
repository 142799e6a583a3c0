"""The curve of the mix: its laws, its corners, its refusals."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_modules import Curriculum

FRAMES = {
    "start": {"at": 0.0, "weights": {"c4": 2.0}},
    "switch": {"at": 0.6, "weights": {"c4": 0.9, "cosmopedia": 0.1}},
    "settled": {"at": 0.8, "weights": {"c4": 1, "cosmopedia": 3}},
}
weights = st.dictionaries(st.sampled_from("abcde"), st.floats(0, 1e6), min_size=1).filter(
    lambda w: sum(w.values()) > 1e-3
)


@st.composite
def curricula(draw: st.DrawFn) -> Curriculum:
    points = sorted(draw(st.sets(st.floats(0, 1), min_size=1, max_size=5)))
    return Curriculum(
        interpolation=draw(st.sampled_from(["step", "linear", "cosine"])),
        keyframes={f"k{n}": {"at": at, "weights": draw(weights)} for n, at in enumerate(points)},
    )


@given(curricula(), st.integers(1, 300))
def test_weights_are_shares_everywhere(curriculum: Curriculum, steps: int) -> None:
    resolved = curriculum.resolve(steps=steps, tokens_per_step=1)
    for step in range(0, steps, max(1, steps // 20)):
        shares = resolved.weights(step)
        assert sum(shares.values()) == pytest.approx(1, abs=1e-12)
        assert all(0 <= share <= 1 for share in shares.values())


@pytest.mark.parametrize(
    ("interpolation", "step", "c4"),
    [
        ("linear", 0, 1.0),
        ("linear", 30, 0.95),
        ("linear", 60, 0.9),
        ("linear", 70, 0.575),
        ("linear", 80, 0.25),
        ("linear", 99, 0.25),
        ("step", 59, 1.0),
        ("step", 60, 0.9),
        ("step", 79, 0.9),
        ("step", 80, 0.25),
        ("cosine", 30, 0.95),
        ("cosine", 65, 0.9 - 0.65 * (1 - 2**-0.5) / 2),
        ("cosine", 90, 0.25),
    ],
)
def test_values_by_hand(interpolation: Any, step: int, c4: float) -> None:
    resolved = Curriculum(keyframes=FRAMES, interpolation=interpolation).resolve(steps=100, tokens_per_step=1)
    assert resolved.weights(step) == pytest.approx({"c4": c4, "cosmopedia": 1 - c4})


def test_units_say_the_same() -> None:
    by_unit = []
    for unit, scale in (("fraction", 1), ("steps", 200), ("tokens", 200 * 64)):
        frames = {name: {"at": frame["at"] * scale, "weights": frame["weights"]} for name, frame in FRAMES.items()}
        resolved = Curriculum(unit=unit, keyframes=frames).resolve(steps=200, tokens_per_step=64)
        by_unit.append([share for step in range(200) for share in resolved.weights(step).values()])
    assert by_unit[0] == pytest.approx(by_unit[1])
    assert by_unit[0] == pytest.approx(by_unit[2])


def test_one_keyframe_is_a_constant_mix() -> None:
    resolved = Curriculum(keyframes={"all": {"at": 0, "weights": {"a": 1, "b": 3}}}).resolve(steps=9, tokens_per_step=1)
    assert resolved.weights(0) == resolved.weights(8) == {"a": 0.25, "b": 0.75}


def test_a_keyframe_takes_effect_at_its_step() -> None:
    """0.55 x 100 is 55.00000000000001 in floating point: still step 55."""
    for percent in range(1, 100):
        frames = {"a": {"at": 0, "weights": {"a": 1}}, "b": {"at": percent / 100, "weights": {"b": 1}}}
        resolved = Curriculum(interpolation="step", keyframes=frames).resolve(steps=100, tokens_per_step=1)
        assert resolved.weights(percent - 1) == {"a": 1, "b": 0}
        assert resolved.weights(percent) == {"a": 0, "b": 1}


def test_of_two_keyframes_at_one_step_the_later_holds() -> None:
    frames = {"a": {"at": 0.0, "weights": {"a": 1}}, "b": {"at": 1e-18, "weights": {"b": 1}}}
    for interpolation in ("step", "linear", "cosine"):
        resolved = Curriculum(interpolation=interpolation, keyframes=frames).resolve(steps=9, tokens_per_step=1)
        assert resolved.weights(0) == resolved.weights(8) == {"a": 0, "b": 1}


def test_a_source_can_be_switched_off() -> None:
    """The plainest ablation: its weights 0, and its limit of epochs left where it is."""
    frames = {"all": {"at": 0, "weights": {"a": 1, "b": 0}}}
    assert Curriculum(keyframes=frames, max_epochs={"b": 4}).sources == ("a",)


MIXES = {"base": {"a": 3.0, "b": 1.0}, "target": {"b": 1.0, "c": 1.0, "d": 2.0}}
frames_of_mixes = st.lists(
    st.dictionaries(
        st.sampled_from(["a", "d", "e", "base", "target", "all"]), st.sampled_from([0.0, 0.02, 0.3]) | st.floats(0, 1)
    ).filter(lambda w: sum(w.values()) > 1e-3),
    min_size=1,
    max_size=4,
)
kinds = st.sampled_from(["step", "linear", "cosine"])


def of_frames(frames: list[dict[str, float]], **options: Any) -> Curriculum:
    """A keyframe every ten steps, of mixes or sources."""
    keyframes = {f"k{n}": {"at": 10 * n, "weights": weights} for n, weights in enumerate(frames)}
    return Curriculum(unit="steps", keyframes=keyframes, **options)


@given(frames_of_mixes, kinds)
def test_a_mix_stands_for_its_sources_and_all_for_every_one_of_them(
    frames: list[dict[str, float]], interpolation: Any
) -> None:
    by_hand = MIXES | {"all": dict.fromkeys("abcd", 1.0)}
    plain = [
        {
            source: sum(
                w * by_hand.get(name, {name: 1.0}).get(source, 0) / sum(by_hand.get(name, {name: 1.0}).values())
                for name, w in weights.items()
            )
            for source in "abcde"
        }
        for weights in frames
    ]
    named = of_frames(frames, mixes=MIXES, interpolation=interpolation).resolve(steps=60, tokens_per_step=1)
    spelled = of_frames(plain, interpolation=interpolation).resolve(steps=60, tokens_per_step=1)
    assert set(named.sources) == set(spelled.sources)
    for step in range(0, 60, 3):
        assert named.weights(step) == pytest.approx(spelled.weights(step), abs=1e-12)


floors = st.dictionaries(st.sampled_from(["a", "d", "base", "target", "all"]), st.floats(0, 0.3)).filter(
    lambda replay: sum(replay.values()) < 0.99
)


@given(frames_of_mixes, floors, kinds)
def test_replay_is_the_least_share_once_a_source_has_weight_and_takes_by_weight(
    frames: list[dict[str, float]], replay: dict[str, float], interpolation: Any
) -> None:
    options: dict[str, Any] = {"mixes": MIXES, "interpolation": interpolation}
    replay = {name: floor for name, floor in replay.items() if name in {*MIXES, "all", *(k for w in frames for k in w)}}
    with_replay = of_frames(frames, replay=replay, **options)
    resolved = with_replay.resolve(steps=60, tokens_per_step=1)
    without = of_frames(frames, **options).resolve(steps=60, tokens_per_step=1)
    least = with_replay.by_source(replay)
    seen: set[str] = set()
    needed = False
    for step in range(60):
        shares, plain = resolved.weights(step), without.weights(step)
        assert sum(shares.values()) == pytest.approx(1, abs=1e-12)
        if step in range(0, 10 * len(frames), 10):  # a keyframe
            seen |= {source for source, share in plain.items() if share > 0}
            needed |= any(plain[source] < least.get(source, 0) for source in seen)
            free = [s for s in shares if shares[s] > max(least.get(s, 0), 1e-6) * (1 + 1e-9)]
            scales = [shares[source] / plain[source] for source in free]
            assert scales == pytest.approx([scales[0]] * len(free))  # by weight
        assert all(shares[source] >= least.get(source, 0) - 1e-12 for source in seen)
    if not needed:
        assert np.array_equal(resolved.weights_at(np.arange(60)), without.weights_at(np.arange(60)))


def test_limits_are_of_sources_by_name_or_by_mix() -> None:
    frames = [{"base": 1.0, "target": 1.0}]
    limits = of_frames(frames, mixes=MIXES, max_epochs={"target": 3, "b": 1.5, "a": 9}).limits
    assert limits == {"a": 9, "b": 1.5, "c": 3, "d": 3}  # a name of its own goes before that of a mix
    assert of_frames(frames, mixes=MIXES, max_epochs={"all": 4}).limits == dict.fromkeys("abcd", 4)
    assert of_frames([{"a": 1.0}], mixes=MIXES, max_epochs={"all": 4}).limits == {"a": 4}  # the others have no weight


def test_a_source_is_traced_to_the_setting_that_names_it() -> None:
    curriculum = of_frames([{"a": 1.0}, {"target": 1.0}, {"all": 1.0}, {"base": 1.0, "e": 1.0}], mixes=MIXES)
    assert {source: curriculum.setting_of(source) for source in "abde"} == {
        "a": "curriculum.keyframes.k0.weights.a",
        "b": "curriculum.mixes.target.b (keyframe k1)",
        "d": "curriculum.mixes.target.d (keyframe k1)",
        "e": "curriculum.keyframes.k3.weights.e",
    }
    everyone = of_frames([{"all": 1.0}], mixes=MIXES)
    assert everyone.setting_of("b") == "curriculum.mixes.base.b (keyframe k0)"


def test_a_step_lies_at_a_keyframe_or_between_two() -> None:
    frames = {name: frame | {"at": frame["at"] * 100 + 10} for name, frame in FRAMES.items()}  # 10, 70, 90
    linear, step = (
        Curriculum(unit="steps", interpolation=kind, keyframes=frames).resolve(steps=200, tokens_per_step=1)
        for kind in ("linear", "step")
    )
    first, second = "keyframes start to switch", "keyframes switch to settled"
    assert [linear.place(n) for n in (0, 9, 10, 69, 70, 89)] == ["keyframe start"] * 2 + [first] * 2 + [second] * 2
    assert [step.place(n) for n in (0, 69, 70, 89)] == ["keyframe start"] * 2 + ["keyframe switch"] * 2
    assert {curriculum.place(n) for curriculum in (linear, step) for n in (90, 199)} == {"keyframe settled"}


def test_cosine_is_half_of_one_less_the_cosine() -> None:
    frames = [{"a": 1.0}, {"b": 1.0}]
    keyframes = {f"k{n}": {"at": 1000 * n, "weights": weights} for n, weights in enumerate(frames)}
    resolved = Curriculum(unit="steps", interpolation="cosine", keyframes=keyframes).resolve(
        steps=1000, tokens_per_step=1
    )
    for step in range(1000):
        assert resolved.weights(step)["b"] == pytest.approx((1 - math.cos(math.pi * step / 1000)) / 2, abs=1e-12)


def changed(frame: str, key: str, value: Any) -> dict[str, Any]:
    return {name: entry | ({key: value} if name == frame else {}) for name, entry in FRAMES.items()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keyframes": {}}, "curriculum.keyframes is empty"),
        ({"keyframes": FRAMES, "unit": "epochs"}, "curriculum.unit is 'epochs': it must be one of fraction, steps"),
        ({"keyframes": FRAMES, "interpolation": "cubic"}, "curriculum.interpolation is 'cubic'"),
        ({"keyframes": FRAMES, "on_exhausted": "stop"}, "curriculum.on_exhausted is 'stop'"),
        ({"keyframes": FRAMES, "max_epochs": {"wiki": 4}}, "curriculum.max_epochs.wiki is in no keyframe"),
        ({"keyframes": changed("switch", "at", 0.9)}, "keyframes.settled.at is 0.8: it must be above"),
        (
            {"keyframes": changed("settled", "at", 1.1)},
            "keyframes.settled.at is 1.1: it must be at most 1",
        ),
        ({"keyframes": {"start": 3}}, "keyframes.start is 3: its keys must be 'at' and 'weights'"),
        ({"keyframes": {"start": None}}, "keyframes.start is None: its keys must be"),
        ({"keyframes": None}, "curriculum.keyframes is None: it must map names to at and weights"),
        ({"keyframes": changed("start", "at", -1)}, "keyframes.start.at is -1"),
        ({"keyframes": changed("start", "weights", {"c4": -0.1})}, "keyframes.start.weights.c4 is -0.1"),
        ({"keyframes": changed("start", "weights", {"c4": 0})}, "keyframes.start.weights are all 0"),
        ({"keyframes": changed("start", "weights", {"c4": "much"})}, "keyframes.start.weights.c4 is 'much'"),
        ({"keyframes": changed("start", "weights", {"c4": float("nan")})}, "keyframes.start.weights.c4 is nan"),
        (
            {"keyframes": FRAMES, "replay": {"wiki": 0.1}},
            "curriculum.replay.wiki is in no keyframe and no",
        ),
        ({"keyframes": FRAMES, "replay": {"c4": -0.1}}, "curriculum.replay.c4 is -0.1: it must be a number"),
        (
            {"keyframes": FRAMES, "replay": {"c4": 0.5, "cosmopedia": 0.5}},
            "curriculum.replay adds up to 1: it must add up",
        ),
        ({"keyframes": FRAMES, "replay": {"c4": 1.5}}, "curriculum.replay adds up to 1.5"),
        ({"keyframes": FRAMES, "replay": 0.2}, "curriculum.replay is 0.2: it must map sources to numbers"),
        ({"keyframes": FRAMES, "max_epochs": {"c4": 0}}, "curriculum.max_epochs.c4 is 0: it must be a number, "),
        ({"keyframes": FRAMES, "mixes": {"web": {"c4": 0}}}, "curriculum.mixes.web are all 0"),
        ({"keyframes": FRAMES, "mixes": {"web": {"c4": -1}}}, "curriculum.mixes.web.c4 is -1: it must be a number"),
        ({"keyframes": FRAMES, "mixes": {"web": 1}}, "curriculum.mixes.web is 1: it must map sources to weights"),
        (
            {"keyframes": {"start": {"weights": {"c4": 1}}}},
            "keyframes.start has the keys 'weights': its keys must be",
        ),
    ],
)
def test_a_curriculum_that_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Curriculum(**options)
