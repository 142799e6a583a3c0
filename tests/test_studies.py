"""The studies that ship compare what they say they compare."""

import numpy as np
import pytest

from benchmarks.study_optimizer import where_it_is_reached
from benchmarks.study_switch import BASE, LOSSES, REST, SWITCHES, Switched, table
from data_modules import Curriculum, SampleOrder
from mix_laws import design_mixes
from mix_laws.simplex import random_mixes, weights_by_source
from running.config.compose import CONF, compose_config

SIZES = {
    "readmes": 1979,
    "stdlib": 7983,
    "pydoc": 1802,
    "docstrings": 2145,
}  # sequences, about what an installation has


def order_of(experiment: str, curriculum: str) -> SampleOrder:
    config = compose_config("train", [f"experiment={experiment}", f"curriculum={curriculum}", "seed=1"])
    resolved = Curriculum(**config["curriculum"]).resolve(steps=config["max_steps"], tokens_per_step=2048)
    return SampleOrder(resolved, sequences=SIZES, global_batch=config["global_batch"], seed=1)


def axis(experiment: str) -> list[str]:
    """The curricula that an experiment sweeps over."""
    text = (CONF / "experiment" / f"{experiment}.yaml").read_text()
    return [word for word in text.replace(",", " ").split() if word.startswith(("study/", "study_mix/"))]


@pytest.mark.parametrize("name", SWITCHES)
def test_every_switch_has_the_same_totals_and_is_where_the_study_looks(name: str) -> None:
    order = order_of("study_switch", f"study/{name}")
    totals = {"readmes": 2400, "stdlib": 2400, "pydoc": 1600, "docstrings": 1600}
    assert order.counts(1000) == pytest.approx(totals, abs=2)  # the steps of a ramp lie half a step beside its middle
    shares = [sum(order.curriculum.weights(step)[source] for source in BASE) for step in range(1000)]
    if name == "static":
        assert shares == pytest.approx([0.6] * 1000)
        return
    first = SWITCHES[name] + (0 if name.startswith("abrupt") else 1)  # a ramp begins with the base alone
    assert shares[:first] == pytest.approx([1.0] * first)
    assert shares[first] < 1
    assert shares[-1] == pytest.approx(0.2 if name.endswith("replay") else 0)
    falls = np.diff(shares)
    assert (falls < -1e-9).sum() == (1 if name.startswith("abrupt") else 200)


def test_the_mixes_are_those_that_the_plan_proposes_and_four_more() -> None:
    caps = np.ones(4)
    mixes = {f"mix_{n:02}": mix for n, mix in enumerate(design_mixes(20, caps))}
    mixes |= {f"held_out_{n}": mix for n, mix in enumerate(random_mixes(4, caps, floor=0.01, seed=1))}
    assert sorted(path.stem for path in (CONF / "curriculum" / "study_mix").iterdir()) == sorted(mixes)
    swept = [*dict.fromkeys(axis("study_mix_law"))]
    assert swept == [f"study_mix/{name}" for name in mixes]
    for name, mix in mixes.items():
        order = order_of("study_mix_law", f"study_mix/{name}")
        assert order.curriculum.weights(0) == pytest.approx(weights_by_source(list(SIZES), mix, caps))


def test_each_way_to_switch_is_an_axis() -> None:
    assert axis("study_switch") == [f"study/{name}" for name in SWITCHES]


def made_up(curriculum: str, seed: int, *, final: float, spike: float) -> Switched:
    """Losses that are least at step 600, and a gradient of norm 2 that jumps in the step after the switch."""
    first = SWITCHES[curriculum]
    rows = [{"step": step, "train/grad_norm": 2.0 * (spike if step == first + 1 else 1)} for step in range(1, 1001)]
    for step, loss in ((300, 5.0), (600, 4.0), (1000, final)):
        names = ("mean", "readmes", "stdlib", "pydoc", "docstrings")
        rows[step - 1] |= {f"val/loss/{name}": loss + 0.001 * seed for name in names}
    return Switched(curriculum, seed, rows)


def test_what_is_forgotten_and_how_high_the_gradient_jumps() -> None:
    run = made_up("abrupt", 1, final=4.25, spike=3.5)
    assert run.forgotten("readmes") == pytest.approx(0.25)
    assert run.peak(10) == pytest.approx(3.5)
    assert made_up("ramp", 1, final=4.0, spike=1.0).forgotten("stdlib") == 0.0
    late = run._replace(rows=[row | {"train/grad_norm": 9.0} if row["step"] == 650 else row for row in run.rows])
    assert (late.peak(10), late.peak(100)) == pytest.approx((3.5, 4.5))


def test_the_table_tells_a_difference_from_noise() -> None:
    finals = {"static": 4.25, "abrupt": 4.25, "ramp": 4.1, "abrupt_replay": 4.25, "ramp_replay": 4.25}
    shaken = {
        (name, seed): 0.002 * ((seed * 7 + n * 5) % 3 - 1) for n, name in enumerate(SWITCHES) for seed in (1, 2, 3)
    }
    runs = [
        made_up(name, seed, final=final + shaken[name, seed], spike=1)
        for name, final in finals.items()
        for seed in (1, 2, 3)
    ]
    head, *body = table(runs, LOSSES)
    assert head[:3] == ["curriculum", "mean", "difference from static (mean)"]
    by_name = {row[0]: row[1:] for row in body}
    assert by_name["ramp"][0] == "4.102 (-0.150 ≠)"
    assert by_name["ramp"][1].endswith("≠")
    assert by_name["static"][0].endswith("(+0.000 ≈)")
    assert len(table(runs, REST)) == len(SWITCHES) + 2


def test_where_a_loss_is_reached_is_found_between_two_lengths() -> None:
    """Half way in the logarithm: the geometric mean of the two."""
    reached = [(100, [0.2, 0.1]), (400, [-0.2, -0.1]), (800, [-0.5, -0.5])]
    assert "at 25% of its tokens (seed by seed 25%, 25%)" in where_it_is_reached(reached)
    assert "does not lie between" in where_it_is_reached([(100, [-0.1, 0.1]), (400, [-0.2, -0.1])])
