"""The learning rate, against a real run's log."""

import re
from pathlib import Path

import pytest

from gpt_lightning.optim import cosine_schedule


def test_the_schedule_is_the_one_of_a_real_run(shared_data: Path) -> None:
    """RangeFlow-GPT: peak 6e-4, 1,750 steps of warm-up, then a cosine; its log prints three digits.

    It states 25,000 steps. Its log follows a cosine that ends at 0 after 17,500.
    """
    share = cosine_schedule(warmup_steps=1750, steps=17_500, final_ratio=0.0)
    compared = 0
    for path in sorted((shared_data / "rangeflow").glob("training_*.log")):
        for step, rate in re.findall(r"Step +(\d+) \| Loss: \S+ \| LR: (\S+) \|", path.read_text(encoding="utf-8")):
            assert f"{6e-4 * share(int(step) - 1):.2e}" == rate, f"step {step}"
            compared += 1
    assert compared >= 250


def test_corners() -> None:
    share = cosine_schedule(warmup_steps=10, steps=110, final_ratio=0.1)
    assert [share(0), share(5), share(10), share(110), share(500)] == [0.0, 0.5, 1.0, 0.1, 0.1]
    assert share(60) == pytest.approx(0.55)
    assert all(share(step) >= share(step + 1) for step in range(10, 110))
    assert cosine_schedule(warmup_steps=0, steps=10, final_ratio=0.0)(0) == 1.0


@pytest.mark.parametrize(("warmup_steps", "final_ratio"), [(-1, 0.1), (100, 0.1), (10, -0.1), (10, 1.1)])
def test_a_schedule_that_cannot_be_is_refused(warmup_steps: int, final_ratio: float) -> None:
    with pytest.raises(ValueError, match=r"schedule\.(warmup_steps|final_ratio) is"):
        cosine_schedule(warmup_steps=warmup_steps, steps=100, final_ratio=final_ratio)
