"""The learning rate: the laws of its shapes, and a real run's log."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_lightning.learning_rate_schedules import FALLS
from gpt_lightning.optim import learning_rate_schedule


@st.composite
def settings(draw: Any, shapes: tuple[str, ...] = tuple(FALLS)) -> dict[str, Any]:
    """Of a schedule that can be."""
    shape = draw(st.sampled_from(shapes))
    steps = draw(st.integers(2, 3000))
    chosen = {"shape": shape, "steps": steps, "final_ratio": draw(st.floats(0, 1))}
    if shape == "wsd":
        chosen["decay_share"] = draw(st.floats(1 / steps, 1))
        steps = int(steps * (1 - chosen["decay_share"])) + 1
    return chosen | {"warmup_steps": draw(st.integers(0, steps - 1))}


def cosine(**options: Any) -> Callable[[int], float]:
    return learning_rate_schedule(shape="cosine", **options)


@given(settings())
def test_it_rises_to_the_peak_and_never_again(chosen: dict[str, Any]) -> None:
    share = learning_rate_schedule(**chosen)
    warmup, steps = chosen["warmup_steps"], chosen["steps"]
    shares = [share(step) for step in range(steps + 2)]
    assert shares[: warmup + 1] == pytest.approx([n / warmup if warmup else 1.0 for n in range(warmup + 1)], abs=1e-12)
    floor = 1.0 if chosen["shape"] == "constant" else chosen["final_ratio"]
    assert all(a >= b - 1e-12 for a, b in zip(shares[warmup:], shares[warmup + 1 :], strict=False))
    assert shares[-2:] == pytest.approx([floor, floor], abs=1e-12)
    assert all(0 <= value <= 1 for value in shares)


@given(settings(("cosine", "linear", "constant")))
def test_it_has_no_jumps(chosen: dict[str, Any]) -> None:
    """The steepest place is the middle of the cosine: pi / 2 of the mean slope."""
    share = learning_rate_schedule(**chosen)
    begin, end = chosen["warmup_steps"], chosen["steps"]
    steepest = (1 - chosen["final_ratio"]) * math.pi / 2 / (end - begin)
    assert all(share(step) - share(step + 1) <= steepest + 1e-12 for step in range(begin, end))


@given(settings(("wsd",)))
def test_wsd_falls_over_the_last_part_alone(chosen: dict[str, Any]) -> None:
    """By 1 - sqrt, which is steepest at its beginning: after a share p of the fall, sqrt(p) of it is done."""
    share = learning_rate_schedule(**chosen)
    steps, length = chosen["steps"], chosen["steps"] * chosen["decay_share"]
    for step in range(chosen["warmup_steps"], steps + 1):
        done = max(0.0, step - (steps - length)) / length
        expected = 1 - (1 - chosen["final_ratio"]) * math.sqrt(done)
        assert share(step) == pytest.approx(expected, abs=1e-6)


@given(settings(("wsd", "constant")), st.integers(1, 1000))
def test_a_plateau_does_not_know_how_long_the_run_is(chosen: dict[str, Any], more: int) -> None:
    """So a run may be made longer while it is on it, and a branch may leave it anywhere."""
    share, longer = (
        learning_rate_schedule(**chosen | {"steps": steps}) for steps in (chosen["steps"], chosen["steps"] + more)
    )
    end = chosen["steps"] * (1 - chosen.get("decay_share", 0))
    assert all(share(step) == longer(step) for step in range(int(end)))


@given(settings(("linear",)))
def test_the_line_is_a_line(chosen: dict[str, Any]) -> None:
    share = learning_rate_schedule(**chosen)
    begin, end = chosen["warmup_steps"], chosen["steps"]
    for step in range(begin, end + 1):
        expected = 1 - (1 - chosen["final_ratio"]) * (step - begin) / (end - begin)
        assert share(step) == pytest.approx(expected, abs=1e-12)


def test_the_schedule_is_the_one_of_a_real_run(shared_data: Path) -> None:
    """RangeFlow-GPT: peak 6e-4, 1,750 steps of warm-up, then a cosine; its log prints three digits.

    It states 25,000 steps. Its log follows a cosine that ends at 0 after 17,500.
    """
    share = cosine(warmup_steps=1750, steps=17_500, final_ratio=0.0)
    compared = 0
    for path in sorted((shared_data / "rangeflow").glob("training_*.log")):
        for step, rate in re.findall(r"Step +(\d+) \| Loss: \S+ \| LR: (\S+) \|", path.read_text(encoding="utf-8")):
            assert f"{6e-4 * share(int(step) - 1):.2e}" == rate, f"step {step}"
            compared += 1
    assert compared >= 250


def test_corners() -> None:
    share = cosine(warmup_steps=10, steps=110, final_ratio=0.1)
    assert [share(0), share(5), share(10), share(110), share(500)] == [0.0, 0.5, 1.0, 0.1, 0.1]
    assert share(60) == pytest.approx(0.55)
    assert all(share(step) >= share(step + 1) for step in range(10, 110))
    assert cosine(warmup_steps=0, steps=10, final_ratio=0.0)(0) == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warmup_steps": -1}, r"schedule\.warmup_steps is -1: it must be 0 or more and below max_steps=100"),
        ({"warmup_steps": 100}, r"schedule\.warmup_steps is 100: it must be 0 or more and below max_steps=100"),
        (
            {"warmup_steps": 2.5},
            r"warmup_steps is 2\.5: .* a whole number such as 10, or as a share of the run such as 0\.05",
        ),
        ({"warmup_steps": "12.5%"}, r"warmup_steps is 12\.5%: .* or as a share of the run such as 0\.125"),
        ({"final_ratio": -0.1}, r"schedule\.final_ratio is -0\.1: it must lie between 0 and 1"),
        ({"final_ratio": 1.1}, r"schedule\.final_ratio is 1\.1: it must lie between 0 and 1"),
        ({"shape": "cosin"}, r"schedule\.shape is 'cosin': it must be one of cosine, linear, wsd, constant"),
        ({"decay_share": 0.2}, r"schedule\.decay_share is 0\.2: it must be null for schedule.shape=cosine"),
        ({"shape": "wsd"}, r"schedule\.decay_share is None: it must be above 0 and at most 1"),
        ({"shape": "wsd", "decay_share": 0}, r"schedule\.decay_share is 0: it must be above 0 and at most 1"),
        ({"shape": "wsd", "decay_share": 1.5}, r"schedule\.decay_share is 1\.5: it must be above 0"),
        (
            {"shape": "wsd", "decay_share": 0.95},
            r"decay_share is 0\.95: it must be at most 0\.9, because schedule\.warmup_steps=10",
        ),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        learning_rate_schedule(
            **{"shape": "cosine", "warmup_steps": 10, "final_ratio": 0.1} | options,
            steps=100,
        )
