"""A run and a sweep of commit e63e627 (tests/cases/run_of_e63e627): today's code continues them bit for bit."""

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from running.commands.report import report
from running.commands.train import train
from running.config.compose import compose_config
from running.config.quote_for_hydra import quote_text_settings
from tests.conftest import ROOT
from tests.run_files import assert_same_rows, contents, diet, final_checkpoint, metrics, saved_steps

CASE = ROOT / "tests" / "cases" / "run_of_e63e627"
CONTINUED: dict[str, Any] = json.loads((CASE / "continued.json").read_text(encoding="utf-8"))
OLD_NAMES = ("callbacks.ZeroShot", "callbacks.DietLog", "callbacks.SuddenEnd", "callbacks.MetricsTable")


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the case, which is also the current folder: its paths are relative."""
    folder = tmp_path / "case"
    shutil.copytree(CASE, folder)
    monkeypatch.chdir(folder)
    return folder


def environment(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    return content


def command(run: Path) -> list[str]:
    """The settings that were typed to start the run."""
    _, script, *settings = shlex.split(environment(run)["command"])
    assert script == "train.py"
    return settings


def config(*more: str) -> dict[str, Any]:
    """The config of the killed run, composed by today's code, with more settings."""
    return compose_config("train", quote_text_settings([*command(Path("runs/run")), *more]))


def start(*arguments: str) -> str:
    typed = [sys.executable, str(ROOT / "train.py"), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(typed, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def sha256(tensors: Iterable[torch.Tensor]) -> str:
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors)).hexdigest()


def fingerprints(run: Path) -> dict[str, str]:
    """Hashes of the final weights and of the optimizer state, as in continued.json."""
    checkpoint = final_checkpoint(run)
    weights, state = checkpoint["state_dict"], checkpoint["optimizer_states"][0]["state"]
    return {
        "weights": sha256(weights[name] for name in sorted(weights)),
        "optimizer": sha256(state[number][key] for number in sorted(state) for key in sorted(state[number])),
    }


def test_the_case_has_the_old_names_and_no_path_of_a_machine() -> None:
    text = (CASE / "runs" / "run" / "config.yaml").read_text(encoding="utf-8")
    assert all(f"_target_: {name}\n" in text for name in OLD_NAMES)
    for path in CASE.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [word for word in (b"/home/", b"/root/", b"/tmp/", b"/Users/", b"/work/") if word in content]
    assert sum(path.stat().st_size for path in CASE.rglob("*") if path.is_file()) < 400_000


def test_the_run_is_resumed_and_ends_as_it_did_then(case: Path) -> None:
    run = case / "runs" / "run"
    then = environment(run)
    said = start(*command(run))
    assert "continuing after step 8" in said
    assert "done: 12 steps in runs/run" in said
    changes = json.loads((run / "changes.jsonl").read_text(encoding="utf-8"))["changes"]
    assert not [key for key in changes if not key.startswith(("git.", "versions.", "device", "arithmetic."))]
    now = environment(run)
    assert [[place, *sequence] for place, sequence in diet(run).items()] == CONTINUED["diet"]
    # rounding differs between processors and versions of torch
    same_arithmetic = now["arithmetic"] == then["arithmetic"] and now["versions"]["torch"] == then["versions"]["torch"]
    assert_same_rows(metrics(run, after=8), CONTINUED["metrics"], rel=0 if same_arithmetic else 1e-3)
    if same_arithmetic:
        assert fingerprints(run) == {key: CONTINUED[key] for key in ("weights", "optimizer")}
    assert len((run / "metrics.csv").read_text().splitlines()) == 1 + len(metrics(run))
    assert "runs/run is done: 12 steps, nothing to do" in start(*command(run))


def test_the_killed_run_is_reported(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report(compose_config("report", ["run=runs/run"]))
    assert "runs/run: 10 steps" in capsys.readouterr().out
    assert (case / "runs" / "run" / "report" / "report.html").is_file()


def test_the_killed_run_has_branches(case: Path) -> None:
    """A branch with the trunk's settings ends as the trunk does."""
    trunk = case / "runs" / "run"
    before = contents(trunk)
    train(config("name=branch", "branch.run=runs/run", "branch.step=8"))
    assert contents(trunk) == before
    branch = case / "runs" / "branch"
    assert saved_steps(branch) == [12]
    assert [[place, *sequence] for place, sequence in diet(branch).items()] == CONTINUED["diet"]


def test_the_sweep_is_done_and_grows(case: Path) -> None:
    sweep = case / "runs" / "rates_sweep"
    before = contents(sweep)
    jobs = sorted(path for path in sweep.iterdir() if (path / "config.yaml").is_file())
    typed = [setting for setting in command(jobs[0]) if not setting.startswith(("optimizer.lr=", "run_dir="))][4:]
    said = start("-m", *typed, "optimizer.lr=1e-3,3e-3,1e-2")
    assert [path.name for path in jobs] == ["optimizer.lr=0.001", "optimizer.lr=0.01"]
    for job in jobs:
        assert f"{job.name} is already finished" in said
        assert {path: sha for path, sha in contents(job).items() if path != "lock"} == {
            path.removeprefix(f"{job.name}/"): sha for path, sha in before.items() if path.startswith(f"{job.name}/")
        }
    assert final_checkpoint(sweep / "optimizer.lr=0.003")["global_step"] == 12
    report(compose_config("report", ["runs=runs/rates_sweep"]))
    assert (sweep / "comparison.html").is_file()
