"""What a sweep knows of its jobs, and when there is nothing left to do for one."""

import json
import math
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpt_lightning.checkpoint_folder import SAVED_STEPS_FILE
from gpt_lightning.file_locks import exclusive_lock, is_locked, lock_owner
from running.config.compose import compose_config
from running.sweeps.multirun import Multirun
from running.sweeps.sweep_state import SweepState, is_finished, objective
from tests.conftest import TINY
from tests.run_files import untimed

Change = Callable[[Path], Any]


@pytest.fixture(scope="module")
def done(trained: Callable[..., Path], tiny_data: Path) -> tuple[Path, dict[str, Any]]:
    """A run that is done, and its config as it is typed."""
    run = trained()
    return run, compose_config("train", [*TINY, f"data_dir={tiny_data}", f"runs_dir={run.parent}", "name=run"])


def stopped_at_8(run: Path) -> None:
    """After a validation and a checkpoint."""
    lines_cut(run, 4)
    (run / SAVED_STEPS_FILE).write_text('{"step": 8}')


def lines_cut(run: Path, n: int) -> None:
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:n]))


def test_a_run_that_is_done_is_over(done: tuple[Path, dict[str, Any]]) -> None:
    run, config = done
    assert config["trainer"]["precision"] == "auto"  # the run has found out what that is
    assert is_finished(run, config)
    assert is_finished(run, {**config, "jobs_at_once": 3, "sweep_dir": "elsewhere"})
    assert objective(run, 0) == untimed(run / "metrics.jsonl")[-1]["val/loss/mean"]
    assert objective(run, 65) == math.inf
    with pytest.raises(ValueError, match="ended with exit code 1"):
        objective(run, 1)


@pytest.mark.parametrize("setting", ["max_steps", "seed", "global_batch", "data_dir"])
def test_with_another_setting_it_is_not(done: tuple[Path, dict[str, Any]], setting: str) -> None:
    run, config = done
    assert not is_finished(run, {**config, setting: 13})


@pytest.mark.parametrize(
    "change",
    [
        lambda run: (run / SAVED_STEPS_FILE).unlink(),
        lambda run: (run / SAVED_STEPS_FILE).write_text('{"step": 8}'),
        lambda run: (run / SAVED_STEPS_FILE).write_text("{"),
        lambda run: (run / "config.yaml").unlink(),
        stopped_at_8,
        lambda run: lines_cut(run, 5),
        lambda run: lines_cut(run, 0),
        lambda run: [path.unlink() for path in (run / "checkpoints").glob("*.pt")],
    ],
)
def test_nor_if_something_of_its_end_is_missing(
    done: tuple[Path, dict[str, Any]], tmp_path: Path, change: Change
) -> None:
    run, config = done
    for name in ("config.yaml", "metrics.jsonl", SAVED_STEPS_FILE):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    shutil.copytree(run / "checkpoints", tmp_path / "checkpoints")
    assert is_finished(tmp_path, config)
    change(tmp_path)
    assert not is_finished(tmp_path, config)


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ({"seed": 13}, "its folder contains a run with other settings: seed=1337, not 13"),
        ({"max_steps": 13, "log_every": 7}, "its folder contains a run with other settings: max_steps=12, not 13"),
        ({"log_every": 7, "data_dir": "elsewhere", "name": "other"}, None),
    ],
)
def test_a_job_that_fails_beside_another_run_says_so(
    done: tuple[Path, dict[str, Any]], tmp_path: Path, setting: dict[str, Any], reason: str | None
) -> None:
    run, config = done
    record = SweepState(tmp_path)
    job = Multirun(record=record).run(
        [sys.executable, "-c", "raise SystemExit(1)"], "run", run=run, config={**config, **setting}
    )
    with pytest.raises(ValueError, match="ended with exit code 1"):
        float(job)
    assert [row["other_run"] for row in record.jobs()] == [reason]


def test_no_run_is_not_over(done: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    assert not is_finished(tmp_path / "nowhere", done[1])
    with pytest.raises(ValueError, match=r"has no validation loss: it needs callbacks\.validation"):
        objective(tmp_path / "nowhere", 0)


def test_the_record_tells_the_jobs_apart(tmp_path: Path) -> None:
    record = SweepState(tmp_path)
    for number, code in enumerate([0, 1, None, 143, 0, -9]):
        record.write(number, f"job={number}", code=code, share={"OMP_NUM_THREADS": "1"})
    (tmp_path / "job=4").mkdir()
    (tmp_path / "job=4" / "pruned.json").write_text(json.dumps({}))
    assert [row["number"] for row in record.jobs()] == [*range(6)]
    assert [row["job"] for row in record.ended(stopped=False)] == ["job=1", "job=5"]
    assert [row["job"] for row in record.ended(stopped=True)] == ["job=3"]
    assert record.completed(before=6) == ["job=0"]
    assert record.completed(before=0) == []
    record.clear()
    assert record.jobs() == []


def test_a_folder_has_an_owner_while_somebody_is_at_work_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert not is_locked(folder)
    with exclusive_lock(folder):
        assert is_locked(folder)
        assert lock_owner(folder).startswith(f"process {os.getpid()} on ")
    assert not is_locked(folder)
    assert not is_locked(tmp_path / ("x" * 300))  # a name that no folder can have is nobody's
