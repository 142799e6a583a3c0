"""Whole sweeps, disturbed, several jobs at once, by another launcher, by a search: each run is the run it would have been."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import psutil
import pytest
import yaml

from running.config.compose import read_config
from tests.conftest import ROOT, TINY, start
from tests.faults.bit_equality import assert_equal
from tests.run_files import untimed
from tests.test_multirun import begun, until

# slow enough for a job to be killed between its first checkpoint and its end
LONGER = [o for o in TINY if not o.startswith(("max_steps=", "micro_batch="))]
LONGER += ["max_steps=20", "micro_batch=2", "data.verify=false"]
GRID = ["experiment=lr_sweep", "optimizer.lr=1e-3,4e-3", "seed=1,2,3"]
JOBS = [f"optimizer.lr={rate},seed={seed}" for rate in ("0.001", "0.004") for seed in (1, 2, 3)]
SEARCH = ["experiment=lr_search", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "callbacks.pruning.startup=1"]
SEARCH += ["hydra.sweeper.sampler.n_startup_trials=2"]  # the others depend on what these two reached


@pytest.fixture(scope="module")
def undisturbed(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of six runs, made two at a time."""
    runs = tmp_path_factory.mktemp("undisturbed")
    answer = start([*LONGER, *GRID, f"data_dir={tiny_data}", f"runs_dir={runs}", "jobs_at_once=2"], "-m")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert answer.stdout.count(" starts on 1 thread: ") == answer.stdout.count(" ended after ") == 6
    assert "loss" not in answer.stdout  # of what the jobs say
    return runs / "lr_sweep"


def assert_same_run(run: Path, other: Path) -> None:
    assert_equal(SimpleNamespace(path=run), SimpleNamespace(path=other), diet=False)  # type: ignore[arg-type]


def starts_of(run: Path) -> int:
    return len([*run.glob("training_*.log")])


def child_of(process: subprocess.Popen[str]) -> psutil.Process:
    (child,) = psutil.Process(process.pid).children()
    return child


def test_a_sweep_that_is_killed_twice_comes_to_the_same(undisturbed: Path, tiny_data: Path, tmp_path: Path) -> None:
    """First the process of the sweep, whose job has not stopped yet when the next start comes to it; then a job."""
    sweep = tmp_path / "lr_sweep"
    runs = [sweep / job for job in JOBS]
    command = [sys.executable, "train.py", "-m", *LONGER, *GRID, f"data_dir={tiny_data}", f"runs_dir={tmp_path}"]
    out = tmp_path / "out"
    with said_into(out) as file, begun(command, cwd=ROOT, stdout=file) as process:
        until((runs[1] / "environment.json").exists, seconds=200)
        orphan = child_of(process)
        orphan.suspend()
        process.kill()
        process.wait()  # or `begun` would end it, and the orphan with it
    with said_into(out) as file, begun(command, cwd=ROOT, stdout=file) as process:
        until(lambda: f"── {JOBS[1]} is still running (process {orphan.pid} " in out.read_text(), seconds=200)
        orphan.resume()
        until((runs[3] / "saved.json").exists, seconds=200)
        child_of(process).kill()
        _, stderr = process.communicate(timeout=200)
    assert process.returncode == 1
    assert stderr.endswith(f"error: 1 job failed: {JOBS[3]}.\n")
    states = [row["state"] for row in json.loads((sweep / "sweep.json").read_text())]
    assert states == ["done", "done", "done", "failed", "done", "done"]
    assert re.search(r"lr=0\.004 seed=1 +failed +\d+ ", out.read_text())
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.count(" is already finished\n") == 5
    assert re.search(r"continuing after step \d+, from .*step_0000", answer.stdout)
    assert [starts_of(run) for run in runs] == [1, 2, 1, 2, 1, 1]
    for run in runs:
        assert_same_run(run, undisturbed / run.name)
    rows = json.loads((sweep / "sweep.json").read_text())
    assert [row["state"] for row in rows] == ["done"] * 6
    losses = [untimed(run / "metrics.jsonl")[-1]["val/loss/mean"] for run in runs]
    assert [row["val_loss"]["mean"] for row in rows] == losses
    best = [row["best"] for row in rows]
    assert best == [False] * 3 + [True] * 3  # of a learning rate all seeds or none


def test_jobs_that_submitit_runs_are_the_same(undisturbed: Path, tiny_data: Path, tmp_path: Path) -> None:
    """Its local executor: processes of their own, which know nothing of the one that waits for them."""
    grid = ["experiment=lr_sweep", "optimizer.lr=4e-3,-1", "seed=1", f"data_dir={tiny_data}", f"runs_dir={tmp_path}"]
    answer = start([*LONGER, *grid, "hydra/launcher=submitit_local"], "-m")
    assert answer.returncode == 1
    assert answer.stderr.endswith("error: 1 job failed: optimizer.lr=-1,seed=1.\n")
    assert_same_run(tmp_path / "lr_sweep" / JOBS[3], undisturbed / JOBS[3])
    rows = json.loads((tmp_path / "lr_sweep" / "sweep.json").read_text())
    assert [(row["job"], row["state"]) for row in rows] == [
        (JOBS[3], "done"),
        ("optimizer.lr=-1,seed=1", "failed"),
    ]


def test_a_search_that_is_killed_comes_to_the_same(tiny_data: Path, tmp_path: Path) -> None:
    """Optuna asks for the same rates, and the same runs are pruned after the same steps."""
    places = [f"data_dir={tiny_data}", "hydra.sweeper.sampler.seed=3"]
    straight = start([*LONGER, *SEARCH, *places, f"runs_dir={tmp_path / 'straight'}"], "-m")
    assert straight.returncode == 0, straight.stdout + straight.stderr
    folder, again = (tmp_path / name / "lr_search" for name in ("straight", "again"))
    order = [row["job"] for row in json.loads((folder / "sweep.json").read_text())]
    command = [sys.executable, "train.py", "-m", *LONGER, *SEARCH, *places, f"runs_dir={tmp_path / 'again'}"]
    with begun(command, cwd=ROOT) as process:
        until((again / order[2] / "environment.json").exists, seconds=200)
        job = child_of(process)
        process.kill()
        job.kill()
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    rows = json.loads((again / "sweep.json").read_text())
    assert [row["job"] for row in rows] == order
    assert {row["state"] for row in rows} == {"done", "pruned"}
    assert yaml.safe_load((again / "optimization_results.yaml").read_text()) == yaml.safe_load(
        (folder / "optimization_results.yaml").read_text()
    )
    completed: list[str] = []
    for row in rows:
        one, other = again / row["job"], folder / row["job"]
        assert read_config(one / "config.yaml")["callbacks"]["pruning"]["against"] == completed
        assert untimed(one / "metrics.jsonl") == untimed(other / "metrics.jsonl")
        if row["state"] == "done":
            assert_same_run(one, other)
            completed.append(row["job"])
        else:
            pruned = json.loads((one / "pruned.json").read_text())
            assert pruned == json.loads((other / "pruned.json").read_text())
            assert pruned["step"] == row["step"] < row["steps"]
            assert pruned["loss"] == row["val_loss"]["mean"] > pruned["median"]


@contextmanager
def said_into(path: Path) -> Iterator[IO[str]]:
    with path.open("a") as file:
        yield file
