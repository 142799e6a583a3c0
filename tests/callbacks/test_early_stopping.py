"""Runs that end when they stop improving: at the same step whatever interrupts them, and once for all."""

import json
from pathlib import Path
from typing import Any

import pytest

from analysis.comparison import read_runs
from gpt_lightning.early_end_file_names import ENDED_EARLY
from running.commands.train import train
from running.sweeps.sweep_state import SweepState, is_finished
from tests.conftest import TINY, composed
from tests.run_files import as_if_killed, assert_same_state, final_checkpoint, metrics

# a loss that is never better by 9 does not improve after the first validation
EARLY = [
    "+callbacks.early._target_=lightning.pytorch.callbacks.EarlyStopping",
    "+callbacks.early.monitor=val/loss/mean",
]
EARLY += ["+callbacks.early.min_delta=9", "+callbacks.early.patience=2", "val_every=2", "callbacks.checkpoints.every=2"]


def config_of(data_dir: Path, runs: Path, *more: str) -> dict[str, Any]:
    overrides = [*TINY, "name=run", "callbacks.samples.every=100", f"data_dir={data_dir}", f"runs_dir={runs}"]
    return composed([*overrides, *EARLY, *more])


@pytest.fixture(scope="module")
def ended(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("early")
    train(config_of(tiny_data, runs))
    return runs / "run"


def test_a_run_that_does_not_improve_ends_with_a_checkpoint(ended: Path) -> None:
    assert final_checkpoint(ended)["global_step"] == 6
    assert metrics(ended)[-1]["step"] == 6
    assert "val/loss/mean" in metrics(ended)[-1]
    row = json.loads((ended / ENDED_EARLY).read_text())
    assert row["step"] == 6
    assert "val/loss/mean did not improve in the last 2 records" in row["why"]
    (log,) = ended.glob("training_*.log")
    assert "ended early after step 6" in log.read_text()


def test_it_is_over_for_the_same_command_and_for_a_sweep(
    ended: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = as_if_killed(ended, tmp_path, after=6)
    config = config_of(tiny_data, tmp_path)
    assert is_finished(run, config)
    train(config)
    assert "ended early after step 6: " in capsys.readouterr().out
    assert final_checkpoint(run)["global_step"] == 6
    (read,) = read_runs([run])
    assert (read.state, "did not improve" in read.note) == ("ended early", True)
    record = SweepState(tmp_path)
    record.write(0, "run", code=0)
    assert record.completed(before=1) == []


def test_a_kill_lets_it_end_at_the_same_step(ended: Path, tiny_data: Path, tmp_path: Path) -> None:
    run = as_if_killed(ended, tmp_path, after=4)
    assert not is_finished(run, config_of(tiny_data, tmp_path))
    train(config_of(tiny_data, tmp_path))
    assert_same_state(final_checkpoint(run), final_checkpoint(ended))


@pytest.mark.parametrize("other", ["callbacks.early.patience=3", "~callbacks.early"])
def test_with_other_callbacks_it_goes_on(ended: Path, tiny_data: Path, tmp_path: Path, other: str) -> None:
    run = as_if_killed(ended, tmp_path, after=6)
    without = other.startswith("~")
    config = config_of(tiny_data, tmp_path, *([] if without else [other]))
    if without:
        del config["callbacks"]["early"]
    assert not is_finished(run, config)
    train(config)
    assert final_checkpoint(run)["global_step"] == (12 if without else 8)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["callbacks.early.monitor=val_loss"],
            r"monitor is 'val_loss' for EarlyStopping: it must be one of val/loss/mean, ",
        ),
        (["callbacks.early.patience=0"], r"callbacks\.early\.patience is 0: it must be a whole number, 1 or more"),
        (["+callbacks.early.mode=less"], r"callbacks\.early\.mode is 'less': it must be min or max"),
        (["~callbacks.validation"], r"EarlyStopping needs callbacks\.validation"),
    ],
)
def test_what_it_cannot_monitor_is_refused(tiny_data: Path, tmp_path: Path, more: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(config_of(tiny_data, tmp_path, *more))
    assert not (tmp_path / "run" / "environment.json").exists()
