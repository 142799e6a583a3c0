"""Ends that come from outside: a terminal that hangs up, Ctrl-C before anything has begun; and a machine without git."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from callbacks import RunStopped, Samples
from running.commands.train import train
from tests.conftest import ROOT

# As if somebody had pressed Ctrl-C while a module was being imported.
INTERRUPTED = """
import os, runpy, signal, sys
program, at, *sys.argv[1:] = sys.argv[1:]
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == at:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
sys.argv[0] = program
runpy.run_path(program, run_name="__main__")
"""


def hang_up(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGHUP)


def test_a_terminal_that_hangs_up_saves_as_sigterm_does(
    tiny_config: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Samples, "on_step", hang_up)
    config = tiny_config("max_steps=24")
    with pytest.raises(RunStopped, match="stopped by SIGHUP after step") as stopped:
        train(config)
    assert stopped.value.exit_code == 143
    assert 6 <= json.loads((Path(config["run_dir"]) / "saved.json").read_text())["step"] < 24


def test_a_hangup_that_nohup_ignores_stays_ignored(
    tiny_config: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Samples, "on_step", hang_up)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        train(tiny_config())
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_machine_without_git_trains(
    tiny_config: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    config = tiny_config("max_steps=3")
    train(config)
    environment = json.loads((Path(config["run_dir"]) / "environment.json").read_text())
    assert environment["git"] == {"revision": None, "changed": False}


@pytest.mark.parametrize(
    ("program", "at"),
    [
        *(
            (program, "hydra")
            for program in ("convert", "evaluate", "generate", "plan", "prepare", "report", "train", "verify")
        ),
        ("train", "hydra.core.override_parser.overrides_parser"),
        ("train", "torch"),
        ("report", "numpy"),
    ],
)
def test_ctrl_c_in_the_first_seconds_is_a_sentence(
    program: str, at: str, tiny_overrides: list[str], tmp_path: Path
) -> None:
    settings = tiny_overrides if program == "train" else []
    command = [sys.executable, "-c", INTERRUPTED, f"{program}.py", at, *settings]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    of_training = " before there was anything to save" if program == "train" else ""
    assert (done.returncode, done.stderr) == (130, f"error: stopped by SIGINT{of_training}.\n")
    assert not (tmp_path / "runs").exists()
