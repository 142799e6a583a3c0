"""The studies that ship compare what they say they compare."""

import numpy as np
import pytest

import launch
from analysis.mix_law import design_mixes
from analysis.mix_law.simplex import as_weights, random_mixes
from benchmarks.study_switch import BASE, SWITCHES
from data_modules import SampleOrder
from running.run_config import curriculum_of

SIZES = {
    "readmes": 1979,
    "stdlib": 7983,
    "pydoc": 1802,
    "docstrings": 2145,
}  # sequences, about what an installation has


def order_of(experiment: str, curriculum: str) -> SampleOrder:
    config = launch.compose_config("train", [f"experiment={experiment}", f"curriculum={curriculum}", "seed=1"])
    resolved = curriculum_of(config).resolve(steps=config["max_steps"], tokens_per_step=2048)
    return SampleOrder(resolved, sequences=SIZES, global_batch=config["global_batch"], seed=1)


def axis(experiment: str) -> list[str]:
    """The curricula that an experiment sweeps over."""
    text = (launch.CONF / "experiment" / f"{experiment}.yaml").read_text()
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
    assert sorted(path.stem for path in (launch.CONF / "curriculum" / "study_mix").iterdir()) == sorted(mixes)
    swept = [*dict.fromkeys(axis("study_mix_law"))]
    assert swept == [f"study_mix/{name}" for name in mixes]
    for name, mix in mixes.items():
        order = order_of("study_mix_law", f"study_mix/{name}")
        assert order.curriculum.weights(0) == pytest.approx(as_weights(list(SIZES), mix, caps))


def test_each_way_to_switch_is_an_axis() -> None:
    assert axis("study_switch") == [f"study/{name}" for name in SWITCHES]
