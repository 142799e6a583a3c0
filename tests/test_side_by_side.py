"""Runs that need the same data at the same time; and how a process that Slurm or torchrun has started knows what it is."""

import os
import re
import subprocess
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from callbacks import GracefulStop
from gpt_lightning.file_locks import exclusive_lock
from running.training import prepared_data, rank_processes

OF_AN_ALLOCATION = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2"}


def test_a_second_run_waits_for_what_the_first_one_prepares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prepared_data, "_LOOK_EVERY", 0.05)
    monkeypatch.setattr(subprocess, "Popen", lambda *_: pytest.fail("it prepared the source as well"))
    signs: list[float] = []
    sign = tmp_path / ".being_prepared"

    def first() -> None:
        while not sign.exists():  # the second one waits, and tells its own ranks so
            time.sleep(0.02)
        signs.append(sign.stat().st_mtime)
        (tmp_path / "readmes").mkdir()
        (tmp_path / "readmes" / "source.json").touch()
        held.close()

    with ExitStack() as held:
        held.enter_context(exclusive_lock(tmp_path / ".prepared_by"))
        thread = threading.Thread(target=first)
        thread.start()
        prepared_data._prepare({}, ["readmes"], tmp_path)
        thread.join()
    assert len(signs) == 1
    assert re.fullmatch(
        r".* is being prepared by process \d+ on .*: waiting for that process\n", capsys.readouterr().out
    )
    assert [path.name for path in tmp_path.iterdir()] == ["readmes"]


def test_an_interactive_shell_of_slurm_is_no_task_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in OF_AN_ALLOCATION.items():
        monkeypatch.setenv(name, value)
    for tasks_of_step, starter in (("4", "srun"), ("1", None)):
        monkeypatch.setenv("SLURM_STEP_NUM_TASKS", tasks_of_step)
        assert rank_processes.detect_launcher() == starter


def test_max_hours_count_from_the_first_start_of_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which starts ranks again that have failed, as children of the same process."""
    assert GracefulStop(max_hours=1).began == psutil.Process().create_time()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert GracefulStop(max_hours=1).began == psutil.Process(os.getppid()).create_time()
