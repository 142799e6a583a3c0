"""The curve of the mix: its laws, its corners, its refusals."""

from typing import Any

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
        resolved = Curriculum(interpolation=interpolation, keyframes=frames).resolve(steps=9, tokens_per_step=1)  # type: ignore[arg-type]
        assert resolved.weights(0) == resolved.weights(8) == {"a": 0, "b": 1}


def test_a_source_can_be_switched_off() -> None:
    """The plainest ablation: its weights 0, and its limit of epochs left where it is."""
    frames = {"all": {"at": 0, "weights": {"a": 1, "b": 0}}}
    assert Curriculum(keyframes=frames, max_epochs={"b": 4}).sources == ("a",)


def changed(frame: str, key: str, value: Any) -> dict[str, Any]:
    return {name: entry | ({key: value} if name == frame else {}) for name, entry in FRAMES.items()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keyframes": {}}, "curriculum.keyframes is empty"),
        ({"keyframes": FRAMES, "unit": "epochs"}, "curriculum.unit is 'epochs': it must be one of fraction, steps"),
        ({"keyframes": FRAMES, "interpolation": "cubic"}, "curriculum.interpolation is 'cubic'"),
        ({"keyframes": FRAMES, "on_exhausted": "stop"}, "curriculum.on_exhausted is 'stop'"),
        ({"keyframes": FRAMES, "max_epochs": {"wiki": 4}}, "curriculum.max_epochs.wiki names a source"),
        ({"keyframes": changed("switch", "at", 0.9)}, "keyframes.settled.at is 0.8: it must come after"),
        (
            {"keyframes": changed("settled", "at", 1.1)},
            "keyframes.settled.at is 1.1: a fraction of the run is at most 1",
        ),
        ({"keyframes": changed("start", "at", -1)}, "keyframes.start.at is -1"),
        ({"keyframes": changed("start", "weights", {"c4": -0.1})}, "keyframes.start.weights.c4 is -0.1"),
        ({"keyframes": changed("start", "weights", {"c4": 0})}, "keyframes.start.weights are all zero"),
        ({"keyframes": changed("start", "weights", {"c4": "much"})}, "keyframes.start.weights.c4 is 'much'"),
        ({"keyframes": changed("start", "weights", {"c4": float("nan")})}, "keyframes.start.weights.c4 is nan"),
        (
            {"keyframes": {"start": {"weights": {"c4": 1}}}},
            "keyframes.start has the keys weights: a keyframe has exactly",
        ),
    ],
)
def test_a_curriculum_that_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Curriculum(**options)
