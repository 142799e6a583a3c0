"""Runs that others are ahead of are ended, and stay so."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.comparison import read_runs
from analysis.comparison.run import RunState
from callbacks import MedianPruning
from callbacks.median_pruning import RunPruned
from gpt_lightning.early_end_file_names import PRUNED
from running.commands.train import train
from running.sweeps import sweep_state
from tests.run_files import untimed

Config = Callable[..., dict[str, Any]]


def others(runs: Path, losses: dict[str, dict[int, float]]) -> str:
    """Runs beside the tested one, of which nothing is known but their validation; the setting that compares with them."""
    for name, by_step in losses.items():
        (runs / name).mkdir(parents=True)
        rows = [{"step": step, "val/loss/mean": loss} for step, loss in by_step.items()]
        rows.insert(1, {"step": 5, "train/loss": 9.0})
        (runs / name / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"+callbacks.pruning.against=[{','.join(losses)}]"


def pruning(startup: int) -> list[str]:
    return ["+callbacks.pruning._target_=callbacks.MedianPruning", f"+callbacks.pruning.startup={startup}", "name=run"]


def test_a_run_is_ended_where_it_is_above_the_median(tiny_config: Config, tmp_path: Path) -> None:
    """At step 4 it is below the median, at step 8 above; the straight run says what it would have been."""
    straight = {row["step"]: row for row in untimed(train_rows(tiny_config("name=straight"), tmp_path))}
    at_8 = straight[8]["val/loss/mean"]
    against = others(
        tmp_path / "runs", {"a": {4: 9.0, 8: at_8 - 0.2}, "b": {4: 9.0, 8: at_8 - 0.1}, "c": {4: 1.0, 8: 9.0}}
    )
    config = tiny_config(*pruning(3), against)
    metrics = train(config)
    run = tmp_path / "runs" / "run"
    assert metrics["step"] == 8
    assert metrics["val/loss/mean"] == at_8
    pruned = {"step": 8, "loss": at_8, "median": at_8 - 0.1, "against": ["a", "b", "c"]}
    assert json.loads((run / PRUNED).read_text()) == pruned
    assert untimed(run / "metrics.jsonl") == [straight[step] for step in (2, 4, 6, 8)]
    (read,) = read_runs([run])
    assert (read.state, read.note) == (RunState.PRUNED, "at step 8 of 12, because other runs were better")
    before = sorted(run.iterdir())
    assert train(config) == metrics  # nothing to do
    assert sorted(run.iterdir()) == before
    assert sweep_state.is_finished(run, config)
    assert sweep_state.objective(run, 0) == at_8
    without = tiny_config("name=run")
    assert train(without)["step"] == 12
    assert untimed(run / "metrics.jsonl")[-1] == straight[12]
    assert read_runs([run])[0].state is RunState.DONE


@pytest.mark.parametrize(
    ("against", "said"), [(["a"], "median of 1 run at this step."), (["a", "b"], "median of 2 runs at this step.")]
)
def test_the_runs_are_counted(against: list[str], said: str) -> None:
    assert str(RunPruned({"step": 8, "loss": 3.0, "median": 2.0, "against": against})).endswith(said)


def test_few_runs_and_the_median_itself_end_nothing(tiny_config: Config, tmp_path: Path) -> None:
    rows = untimed(train_rows(tiny_config("name=straight"), tmp_path))
    losses = {row["step"]: row["val/loss/mean"] for row in rows if "val/loss/mean" in row}
    lower = {step: loss - 1 for step, loss in losses.items()}
    others(tmp_path / "runs", {"a": lower, "b": lower, "same": losses})
    few = ["+callbacks.pruning.against=[a,b]", *pruning(3)]
    assert train(tiny_config(*few))["step"] == 12
    itself = ["+callbacks.pruning.against=[same]", *pruning(1), "name=itself"]
    assert train(tiny_config(*itself))["step"] == 12
    enough = ["+callbacks.pruning.against=[a,b]", *pruning(2), "name=enough"]
    assert train(tiny_config(*enough))["step"] == 4


def train_rows(config: dict[str, Any], folder: Path) -> Path:
    train(config)
    return folder / "runs" / config["name"] / "metrics.jsonl"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"startup": 0, "against": []}, "startup is 0 for MedianPruning: it must be a number of runs, 1 or more"),
        (
            {"startup": 1, "against": "a"},
            "against is 'a' for MedianPruning: it must be a list of names of run directories",
        ),
        ({"startup": 1, "against": ["../a"]}, "against is .* for MedianPruning"),
    ],
)
def test_what_it_is_given_must_make_sense(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MedianPruning(**arguments)


def test_the_file_is_called_the_same_by_all_who_ask() -> None:
    assert sweep_state.PRUNED == PRUNED
