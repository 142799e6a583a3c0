"""A fork of the server is what a program with an interpreter of its own is: it can stand in its place in the other tests."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import fork_client
from tests.conftest import ROOT, TINY
from tests.run_files import final_weights, same_bits, untimed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="programs are forked on Linux alone")


def answer_of(process_class: type[subprocess.Popen[str]], *command: str, **more: Any) -> tuple[int, str, str]:
    options = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with process_class([sys.executable, *command], **options | more) as process:
        out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def test_it_trains_the_same_run(tiny_data: Path, tmp_path: Path) -> None:
    """And all that train.py imports late is there, which the other tests would not notice."""
    runs = []
    for process_class in (fork_client.Forked, fork_client.Process):
        folder = tmp_path / process_class.__name__
        settings = [*TINY, f"data_dir={tiny_data}", f"runs_dir={folder}", "name=run"]
        code, _, err = answer_of(process_class, "train.py", *settings)
        assert (code, err) == (0, ""), err
        runs.append(folder / "run")
    ours, theirs = runs
    assert untimed(ours / "metrics.jsonl") == untimed(theirs / "metrics.jsonl")
    assert same_bits(final_weights(ours), final_weights(theirs))


def test_it_has_the_arguments_the_folder_and_the_files_and_ends_with_the_code(tmp_path: Path) -> None:
    code, out, err = answer_of(fork_client.Forked, str(ROOT / "generate.py"), "run=nothing", cwd=tmp_path)
    assert (code, out) == (1, "")
    assert (
        err
        == "error: nothing does not exist: it must be a run directory, a checkpoint, or the folder of an exported model.\n"
    )


def test_it_can_be_killed_and_leads_its_session() -> None:
    command = [sys.executable, "train.py", "experiment=quickstart", "data_dir=/nowhere"]
    with fork_client.Forked(command, cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL) as process:
        assert os.getsid(process.pid) == process.pid
        process.kill()
    assert process.returncode == -signal.SIGKILL


def test_what_is_read_as_libraries_are_imported_takes_an_interpreter_of_its_own() -> None:
    command = [sys.executable, "generate.py", "--help"]
    for environment in ({"PYTHONWARNINGS": "error"}, {"HF_HUB_OFFLINE": "1"}):
        with fork_client.Forked(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL) as process:
            assert process._server is None
            process.kill()
