"""Averages of the weights: a part of what a run is, and none of its training."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from analysis.comparison import Comparison, read_runs
from gpt_lightning.checkpoint_folder import checkpoint_path
from running.commands.train import train
from running.sweeps.sweep_state import is_finished
from running.training.callback_builders import build_callbacks
from running.training.start_and_end_messages import hyperparameters
from tests.conftest import TINY, composed
from tests.run_files import as_if_killed, contents, final_checkpoint, identical, metrics, same_bits
from tests.synthetic_runs import finished

CONSTANT = ["curriculum=constant", "curriculum.mixes.base={readmes:0,stdlib:1}", "schedule=constant"]
EMA = ["+callbacks.ema._target_=lightning.pytorch.callbacks.EMAWeightAveraging", "+callbacks.ema.decay=0.5"]
ENOUGH = ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "callbacks")


def config_of(data_dir: Path, runs: Path, *more: str, ema: bool = True) -> dict[str, Any]:
    overrides = [*TINY, "name=run", "callbacks.samples.every=100", f"data_dir={data_dir}", f"runs_dir={runs}"]
    return composed([*overrides, *CONSTANT, *(EMA if ema else []), *more])


@pytest.fixture(scope="module")
def long(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 steps in one go, with checkpoints of 4 and 8."""
    runs = tmp_path_factory.mktemp("long")
    train(config_of(tiny_data, runs, "max_steps=8"))
    return runs / "run"


def assert_same(run: Path, other: Path) -> None:
    ours, theirs = final_checkpoint(run), final_checkpoint(other)
    assert [key for key in ENOUGH if not identical(ours[key], theirs[key])] == []
    assert metrics(run) == metrics(other)


def test_a_finished_run_that_is_made_longer_is_the_long_run(long: Path, tiny_data: Path, tmp_path: Path) -> None:
    train(config_of(tiny_data, tmp_path, "max_steps=4"))
    train(config_of(tiny_data, tmp_path, "max_steps=8"))
    assert_same(tmp_path / "run", long)


def test_a_killed_run_goes_on_with_its_average(long: Path, tiny_data: Path, tmp_path: Path) -> None:
    run = as_if_killed(long, tmp_path, after=4)
    train(config_of(tiny_data, tmp_path, "max_steps=8"))
    assert_same(run, long)


def test_an_average_changes_what_is_validated_and_nothing_of_the_training(
    long: Path, tiny_data: Path, tmp_path: Path
) -> None:
    train(config_of(tiny_data, tmp_path, "max_steps=8", ema=False))
    checkpoint, without = final_checkpoint(long), final_checkpoint(tmp_path / "run")
    assert same_bits(checkpoint["current_model_state"], without["state_dict"])
    assert identical(checkpoint["optimizer_states"], without["optimizer_states"])
    assert not same_bits(checkpoint["state_dict"], without["state_dict"])
    losses = [
        row["val/loss/mean"] for run in (long, tmp_path / "run") for row in metrics(run) if "val/loss/mean" in row
    ]
    assert len(set(losses)) == 4


def test_an_average_that_has_not_begun_is_not_used(tiny_data: Path, tmp_path: Path) -> None:
    late = ["+callbacks.ema.update_starting_at_step=5"]
    train(config_of(tiny_data, tmp_path / "late", "max_steps=8", *late))
    train(config_of(tiny_data, tmp_path / "without", "max_steps=4", ema=False))
    run, without = tmp_path / "late" / "run", tmp_path / "without" / "run"
    at_4 = torch.load(checkpoint_path(run / "checkpoints", 4), weights_only=True)
    assert "averaging_state" not in at_4
    assert same_bits(at_4["state_dict"], final_checkpoint(without)["state_dict"])
    assert metrics(run)[1]["val/loss/mean"] == metrics(without)[1]["val/loss/mean"]
    killed = as_if_killed(run, tmp_path, after=4)
    train(config_of(tiny_data, tmp_path, "max_steps=8", *late))
    assert_same(killed, run)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (None, r"callbacks\.ema\._target_=.*EMAWeightAveraging, and now it is None"),
        ("callbacks.ema.decay=0.9", r"callbacks\.ema\.decay=0\.5, and now it is 0\.9"),
        ("+callbacks.ema.update_every_n_steps=2", r"callbacks\.ema\.update_every_n_steps=None, and now it is 2"),
    ],
)
def test_an_average_is_a_part_of_what_a_run_is(
    long: Path, tiny_data: Path, tmp_path: Path, change: str | None, named: str
) -> None:
    for after in (4, 8):
        run = as_if_killed(long, tmp_path / str(after), after=after)
        config = config_of(tiny_data, run.parent, "max_steps=8", *([change] if change else []), ema=bool(change))
        before = contents(run)
        with pytest.raises(ValueError, match=f"was started with .*{named}"):
            train(config)
        assert contents(run) == before
        assert not is_finished(run, config)
    assert is_finished(run, config_of(tiny_data, run.parent, "max_steps=8"))


def test_none_is_begun_under_way(tiny_data: Path, tmp_path: Path) -> None:
    train(config_of(tiny_data, tmp_path, "max_steps=4", ema=False))
    with pytest.raises(ValueError, match=r"was started with callbacks\.ema\._target_=None, and now it is .*EMA"):
        train(config_of(tiny_data, tmp_path, "max_steps=8"))


def test_no_branch_takes_an_average_for_the_weights(long: Path, tiny_data: Path, tmp_path: Path) -> None:
    branch = [f"branch.run={long}", "branch.step=4", "max_steps=6"]
    with pytest.raises(
        ValueError, match=r"step_00000004\.pt contains an average of the weights, but no callback of this run"
    ):
        train(config_of(tiny_data, tmp_path, *branch, ema=False))
    train(config_of(tiny_data, tmp_path, *branch))
    assert "averaging_state" in final_checkpoint(tmp_path / "run")


@pytest.mark.parametrize(
    ("target", "decides"),
    [
        ("lightning.pytorch.callbacks.EMAWeightAveraging", True),
        ("lightning.pytorch.callbacks.WeightAveraging", True),
        ("callbacks.EMAWeightAveraging", True),
        ("mypackage.Mine", True),
        ("lightning.pytorch.callbacks.DeviceStatsMonitor", False),
        ("callbacks.ZeroShotEvaluation", False),
    ],
)
def test_a_run_with_one_repeats_none_without(target: str, decides: bool) -> None:
    theirs = {"callbacks.x._target_": target, "callbacks.x.decay": 0.5}
    runs = [finished("a", 3.0, seed=1), finished("b", 3.1, seed=2, **theirs), finished("c", 3.2, seed=3, **theirs)]
    groups = [[run.name for run in candidate.runs] for candidate in Comparison(runs).candidates]
    assert sorted(groups) == ([["a"], ["b", "c"]] if decides else [["a", "b", "c"]])


def test_a_report_reads_it_from_the_runs(long: Path, tmp_path: Path) -> None:
    copy = tmp_path / "other"
    shutil.copytree(long, copy, ignore=shutil.ignore_patterns("checkpoints", "tensorboard"))
    config = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(config.replace("decay: 0.5", "decay: 0.25").replace("seed: 1337", "seed: 1"))
    assert len(Comparison(read_runs([long, copy])).candidates) == 2


def test_it_is_a_hyperparameter(tiny_data: Path, tmp_path: Path) -> None:
    settings = hyperparameters(config_of(tiny_data, tmp_path))
    assert settings["callbacks.ema.decay"] == 0.5
    assert not [key for key in settings if key.startswith("callbacks.") and not key.startswith("callbacks.ema.")]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("callbacks.ema.decay=1", "decay is 1 for EMAWeightAveraging"),
        ("+callbacks.ema.update_every_n_steps=0", "update_every_n_steps is 0"),
        ("+callbacks.ema.update_starting_at_epoch=0", "because a run has no epochs. Set update_starting_at_step"),
    ],
)
def test_an_average_that_cannot_be_is_refused(tiny_data: Path, tmp_path: Path, setting: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_callbacks(config_of(tiny_data, tmp_path, setting)["callbacks"])
