"""Which runs repeat each other: those that agree in all that decides their result, but for the seed."""

import dataclasses
import json
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from analysis.comparison import Comparison, read_runs
from analysis.comparison.run import Run, RunState
from analysis.comparison.run_labels import run_labels
from analysis.comparison.run_settings import leaves_results_unchanged, short_names
from tests.synthetic_runs import finished


def in_surroundings(run: Run, **environment: Any) -> Run:
    return dataclasses.replace(run, environment={**run.environment, **environment})


def groups(*runs: Run) -> list[list[str]]:
    return [[run.name for run in candidate.runs] for candidate in Comparison(runs).candidates]


@pytest.mark.parametrize(
    "environment",
    [
        {"git": {"revision": "b" * 40}},
        {"versions": {"torch": "2.14"}},
        {"device": "GPU"},
        {"initial_weights": "f"},
    ],
)
def test_another_revision_version_or_device_is_no_repeat(environment: dict[str, Any]) -> None:
    around = {"git": {"revision": "a" * 40}, "versions": {"torch": "2.13"}, "device": "CPU", "initial_weights": "e"}
    one, same, other = (in_surroundings(finished(name, 3.0, seed=n), **around) for n, name in enumerate("abc"))
    assert groups(one, same, in_surroundings(other, **environment)) == [["a", "b"], ["c"]]
    twin = in_surroundings(finished("d", 3.5, seed=0), **around | environment)
    assert Comparison([one, twin]).twins == {}
    assert len({candidate.name for candidate in Comparison([one, twin]).candidates}) == 2


COSMETIC: dict[str, Any] = {
    "log_every": 5,
    "val_every": 7,
    "callbacks.samples.every": 3,
    "logger.csv._target_": "lightning.pytorch.loggers.CSVLogger",
    "max_hours": 2,
    "data.workers": 4,
    "data.prepare": "missing",
    "data.verify": False,
    "micro_batch": 1,
    "hardware.device": "T4",
    "trainer.devices": 2,
    "trainer.strategy": "ddp",
}


@pytest.mark.parametrize("key", COSMETIC)
def test_what_changes_no_result_parts_no_repeats_and_is_in_no_name(key: str) -> None:
    runs = [
        finished("a", 3.0, seed=1),
        finished("b", 3.1, seed=2, **{key: COSMETIC[key]}),
        finished("c", 3.2, **{"optimizer.lr": 0.1}),
        finished("d", 3.0, seed=1, **{key: COSMETIC[key]}),
    ]
    comparison = Comparison(runs)
    assert groups(*runs) == [["a", "b"], ["c"]]
    assert comparison.twins == {"d": "a"}
    assert [candidate.name for candidate in comparison.candidates] == ["lr=0.001", "lr=0.1"]
    assert comparison.differing == ["seed", "optimizer.lr", key]  # shown, and last


def test_what_sounds_alike_decides() -> None:
    for key in ("data.limit_tokens.c4", "trainer.precision", "log_everything", "loggers", "max_steps", "gradient_clip"):
        assert not leaves_results_unchanged(key)


def branch_in(folder: Path, trunk: Path, name: str, seed: int) -> Path:
    """A run that says it branched off from another."""
    run = folder / name
    shutil.copytree(trunk, run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config |= {"seed": seed, "branch": {"run": str(trunk), "step": 6}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    return run


def test_tails_of_trunks_that_differ_in_their_seed_are_repeats(sweep: Path, tmp_path: Path) -> None:
    a, b, c = (copy_of_in(tmp_path, sweep / name) for name in "abc")  # b is a with another seed, c another rate
    tails = [
        branch_in(tmp_path, a, "tail_a", 1),
        branch_in(tmp_path, b, "tail_b", 2),
        branch_in(tmp_path, c, "tail_c", 3),
    ]
    assert groups(*read_runs(tails)) == [["tail_a", "tail_b"], ["tail_c"]]
    shutil.rmtree(b)  # and of a trunk that cannot be read nothing is known
    assert groups(*read_runs(tails)) == [["tail_a"], ["tail_b"], ["tail_c"]]


def test_a_run_that_is_its_own_trunk_is_read(sweep: Path, tmp_path: Path) -> None:
    tail = branch_in(tmp_path, copy_of_in(tmp_path, sweep / "a"), "tail", 1)
    config = (tail / "config.yaml").read_text()
    for path in (str(tail), "x\\0y"):
        (tail / "config.yaml").write_text(config.replace(str(tmp_path / "a"), f'"{path}"'))
        (run,) = read_runs([tail])
        assert (run.state, run.trunk) == (RunState.DONE, None)


def copy_of_in(folder: Path, run: Path) -> Path:
    shutil.copytree(run, folder / run.name, ignore=shutil.ignore_patterns("checkpoints", "tensorboard"))
    return folder / run.name


@pytest.mark.parametrize(
    ("change", "no_repeat"),
    [
        ({"optimizer.lr": [0.1, 0.001]}, True),
        ({"git.revision": ["a" * 40, "b" * 40]}, True),
        ({"device": ["CPU", "GPU"]}, True),
        ({"log_every": [1, 2], "callbacks.samples.every": [1, 2], "trainer.devices": [2, 1]}, False),
    ],
)
def test_a_change_under_way_parts_repeats_if_it_decides_anything(
    sweep: Path, tmp_path: Path, change: dict[str, Any], no_repeat: bool
) -> None:
    a, b = (copy_of_in(tmp_path, sweep / name) for name in "ab")
    (b / "changes.jsonl").write_text(json.dumps({"after_step": 4, "changes": change}) + "\n")
    assert (len(groups(*read_runs([a, b]))) == 2) is no_repeat


def test_a_setting_that_is_the_end_of_another_keeps_its_name() -> None:
    assert short_names(["lr", "optimizer.lr", "a.b.c", "x.b.c"]) == {
        "lr": "lr",
        "optimizer.lr": "optimizer.lr",
        "a.b.c": "a.b.c",
        "x.b.c": "x.b.c",
    }
    comparison = Comparison([finished("a", 3.0, lr=1), finished("b", 3.1, lr=2, **{"optimizer.lr": 0.1})])
    assert [candidate.name for candidate in comparison.candidates] == [
        "optimizer.lr=0.001, lr=1",
        "optimizer.lr=0.1, lr=2",
    ]


def test_a_seed_that_is_no_number_is_a_seed() -> None:
    assert groups(finished("a", 3.0, seed=[1]), finished("b", 3.1, seed=[2]), finished("c", 3.1, seed=[1])) == [
        ["a", "b"]
    ]


@pytest.mark.parametrize("step", ["abc", "[1]", "-1", "true", "1.5"])
def test_a_branch_at_no_step_breaks_its_run_alone(sweep: Path, tmp_path: Path, step: str) -> None:
    a = copy_of_in(tmp_path, sweep / "a")
    config = yaml.safe_load((a / "config.yaml").read_text())
    config["branch"] = {"run": "x", "step": yaml.safe_load(step)}
    (a / "config.yaml").write_text(yaml.safe_dump(config))
    odd, fine = read_runs([a, sweep / "b"])
    assert (odd.state, fine.state) == (RunState.BROKEN, RunState.DONE)
    assert "branch.step" in odd.note


def test_labels_are_short_and_never_the_same() -> None:
    weights = "curriculum.keyframes.{}.weights.docstrings"
    runs = []
    for switch, settled, seed in product((0.1, 0.4), (0.1, 0.8), (1, 2)):
        mix = {weights.format("switch"): switch, weights.format("settled"): settled}
        runs.append(finished(f"sweep/{switch},{settled},{seed}", 3.0, seed=seed, **mix))
    labels = run_labels(Comparison(runs))
    assert labels["sweep/0.1,0.8,2"] == (
        "switch.weights.docstrings=0.1, settled.weights.docstrings=0.8, seed=2",
        "switch…=0.1, settled…=0.8, seed=2",
    )
    assert len({label.short for label in labels.values()}) == len(runs)
    long = "a prompt of many words that goes on and on, and only here does it differ: {} - and then it goes on again as before"
    runs = [finished(f"run {n}", 3.0, words=long.format(n)) for n in range(3)]
    labels = run_labels(Comparison(runs))
    assert [label.short for label in labels.values()] == ["run 0", "run 1", "run 2"]
    names = [candidate.name for candidate in Comparison(runs).candidates]
    assert len(set(names)) == 3


def test_twins_and_runs_that_are_not_compared_are_called_by_their_names() -> None:
    runs = [finished(name, 3.0) for name in ("a", "again")]
    runs += [finished("b", 3.0, **{"optimizer.lr": 1.0}), finished("c", 3.0, max_steps=11)]
    labels = run_labels(Comparison(runs))
    assert [label.short for label in labels.values()] == ["a", "again", "lr=1", "c"]
