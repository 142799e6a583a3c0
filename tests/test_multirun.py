"""The parent of a multirun: its jobs are told what it is told, and none of them is left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT, start
from tests.runs import saved_steps

TWO_JOBS = """
import sys
from running import multirun
jobs = multirun.Multirun()
for name in ("first", "second"):
    jobs.run([sys.executable, "-c", sys.argv[1], name], name)
jobs.end()
"""
JOB = """
import signal, sys, time
from pathlib import Path
told = Path(sys.argv[1]).open("a", buffering=1)
count = 0
def note(number, frame):
    global count
    told.write(f"{number}\\n")
    count += 1
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
    signal.signal(number, note)
told.write("ready\\n")
begin = time.monotonic()
while count < 2 and time.monotonic() - begin < 2:
    time.sleep(0.02)
sys.exit(143 if count else 0)
"""


@contextmanager
def begun(command: list[str], *, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """A process in a session of its own; whatever becomes of the test, it does not outlive it, nor do its children."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command,
        cwd=cwd,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_hear_signals,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
                process.kill()


def _hear_signals() -> None:
    """Whoever runs the tests in the background may have told them not to."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def until(condition: Callable[[], object], *, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)


def told(folder: Path) -> list[str]:
    path = folder / "first"
    return path.read_text().split() if path.exists() else []


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 143), (signal.SIGHUP, 143)]
)
def test_a_job_is_told_once_and_once_more(number: signal.Signals, code: int, tmp_path: Path) -> None:
    with begun([sys.executable, "-c", TWO_JOBS, JOB], cwd=tmp_path) as process:
        until(lambda: told(tmp_path) == ["ready"], seconds=30)
        for _ in range(3):
            os.killpg(process.pid, number)  # as a terminal does, and a scheduler that tells everybody
        until(lambda: told(tmp_path) == ["ready", str(int(number))], seconds=5)
        time.sleep(0.15)
        os.killpg(process.pid, number)
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == code
    assert told(tmp_path) == ["ready", str(int(number)), str(int(number))]
    assert stderr == (
        f"stopped by {number.name}: no further job is started; the same command goes on with the sweep.\n"
    )
    assert not (tmp_path / "second").exists()


def test_a_signal_that_is_ignored_stays_so(tmp_path: Path) -> None:
    """As under nohup."""
    command = [sys.executable, "-c", TWO_JOBS, "import sys, time; open(sys.argv[1], 'w').close(); time.sleep(0.5)"]
    ignoring = (
        f"import os, signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); os.execv({sys.executable!r}, {command})"
    )
    with begun([sys.executable, "-c", ignoring], cwd=tmp_path) as process:
        until((tmp_path / "first").exists, seconds=30)
        process.send_signal(signal.SIGHUP)
        assert process.wait(timeout=30) == 0
    assert (tmp_path / "second").exists()


def test_a_training_is_told_and_nothing_is_left(tiny_overrides: list[str], tmp_path: Path) -> None:
    long = [o for o in tiny_overrides if not o.startswith("max_steps=")]
    long += ["name=run", "max_steps=100000", "curriculum.on_exhausted=repeat"]
    command = [sys.executable, "train.py", "-m", *long, "optimizer.lr=1e-3,3e-3"]
    sweep = tmp_path / "runs" / "run_sweep"
    with begun(command, cwd=ROOT) as process:
        until(lambda: list(sweep.glob("*/checkpoints/step_*.pt")), seconds=120)
        jobs = psutil.Process(process.pid).children(recursive=True)
        assert jobs
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 143, stderr
    assert "stopped by SIGTERM: no further job is started; the same command goes on with the sweep.\n" in stderr
    assert not [job for job in jobs if job.is_running()]
    assert len([path for path in sweep.iterdir() if path.is_dir()]) == 1


def test_a_multirun_on_two_ranks_ends(tiny_overrides: list[str], tmp_path: Path) -> None:
    """Each job is a process that starts its own ranks, and none waits for those of another."""
    ranks = ["trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu"]
    answer = start([*tiny_overrides, *ranks, "name=run", "optimizer.lr=1e-3,3e-3"], "-m")
    assert answer.returncode == 0, answer.stderr
    jobs = [path for path in (tmp_path / "runs" / "run_sweep").iterdir() if path.is_dir()]
    assert len(jobs) == 2
    assert all(saved_steps(job)[-1] == 12 for job in jobs)
    (compares,) = [line for line in answer.stdout.splitlines() if line.endswith(" compares them")]
    assert compares.startswith(f"python report.py runs='{tmp_path}/runs/run_sweep/*'")


def test_the_jobs_read_the_configs_that_the_multirun_read(tmp_path: Path) -> None:
    hydra = f"{{output_subdir: null, run: {{dir: {tmp_path}}}, sweep: {{dir: {tmp_path}, subdir: .}}}}"
    text = f"defaults: [_self_, group: a]\nrun: none\nruns: null\nlog_dir: null\nout_dir: null\nhydra: {hydra}"
    (tmp_path / "mine.yaml").write_text(text)
    (tmp_path / "further" / "group").mkdir(parents=True)
    (tmp_path / "further" / "group" / "a.yaml").write_text("ours: 1")
    folders = ["--config-path", str(tmp_path), "--config-name", "mine", "--config-dir", str(tmp_path / "further")]
    command = [sys.executable, "report.py", "-m", *folders, "group.ours=2", "run=x,y"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "error: x holds no run" in answer.stderr  # and not: there is no setting group.ours
    assert "error: y holds no run" in answer.stderr
    assert answer.stderr.endswith("error: 2 of the jobs failed: run=x, run=y.\n")
    assert answer.returncode == 1
