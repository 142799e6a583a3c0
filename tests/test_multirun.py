"""The parent of a multirun: its jobs are told what it is told, and none of them is left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import psutil
import pytest

from tests.conftest import ROOT, start
from tests.fork_server import arguments_of
from tests.run_files import saved_steps

TWO_JOBS = """
import sys
from running.sweeps import multirun
jobs = multirun.Multirun()
for name in ("first", "second"):
    jobs.run([sys.executable, "-c", sys.argv[1], name], name)
jobs.end()
"""
AT_ONCE = """
import sys
from pathlib import Path
from running.sweeps import multirun, sweep_state
jobs = multirun.Multirun(shares=[{"OMP_NUM_THREADS": "3"}, {"OMP_NUM_THREADS": "4"}], record=sweep_state.SweepState(Path()))
for number, name in enumerate(("first", "second", "third")):
    jobs.run([sys.executable, "-c", sys.argv[1], name], name, number=number)
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
def begun(command: list[str], *, cwd: Path, stdout: IO[str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """A process in a session of its own; whatever becomes of the test, it does not outlive it, nor do its children."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command,
        cwd=cwd,
        env=environment,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=None if arguments_of(command, cwd) else _hear_signals,  # as a fork does anyway
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


def told(folder: Path, job: str = "first") -> list[str]:
    path = folder / job
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
        f"stopped by {number.name}: no more jobs will be started; run the same command again to continue the sweep.\n"
    )
    assert not (tmp_path / "second").exists()


def test_a_job_is_told_that_comes_after_one_with_nothing_left_to_do(tmp_path: Path) -> None:
    over = "jobs = multirun.Multirun()\njobs.over('zero', number=0, run=None)"
    script = TWO_JOBS.replace("jobs = multirun.Multirun()", over)
    with begun([sys.executable, "-c", script, JOB], cwd=tmp_path) as process:
        until(lambda: told(tmp_path) == ["ready"], seconds=30)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 143
    assert told(tmp_path) == ["ready", "15"]


def test_all_jobs_that_run_are_told(tmp_path: Path) -> None:
    with begun([sys.executable, "-c", AT_ONCE, JOB], cwd=tmp_path) as process:
        until(lambda: told(tmp_path) == told(tmp_path, "second") == ["ready"], seconds=30)
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 143
    assert told(tmp_path) == told(tmp_path, "second") == ["ready", "15"]
    assert (
        stderr
        == "stopped by SIGTERM: no more jobs will be started; run the same command again to continue the sweep.\n"
    )
    assert not (tmp_path / "third").exists()


def test_a_job_stops_when_the_sweep_is_killed(tmp_path: Path) -> None:
    job = f"from running.sweeps import multirun\nmultirun.end_with_sweep()\n{JOB}"
    with begun([sys.executable, "-c", TWO_JOBS, job], cwd=tmp_path) as process:
        until(lambda: told(tmp_path) == ["ready"], seconds=30)
        process.kill()
        until(lambda: told(tmp_path) == ["ready", str(int(signal.SIGTERM))], seconds=30)


def test_two_jobs_at_once_have_a_share_each_and_a_log_each(tmp_path: Path) -> None:
    """The third begins when one of them has ended, with the share of that one; a job that fails ends no other."""
    job = """
import os, sys, time
print("share", os.environ["OMP_NUM_THREADS"])
time.sleep(0 if sys.argv[1] == "second" else 1)
sys.exit("error: not this one" if sys.argv[1] == "second" else 0)
"""
    answer = subprocess.run(
        [sys.executable, "-c", AT_ONCE, job],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 1
    assert answer.stderr == "error: 1 job failed: second.\n"
    logs = [(tmp_path / ".jobs" / f"000{n}.log").read_text().splitlines() for n in range(3)]
    assert logs == [["share 3"], ["share 4", "error: not this one"], ["share 4"]]
    lines = [line for line in answer.stdout.splitlines() if line.startswith("── ")]
    assert [line.split()[:4] for line in lines[:4]] == [
        ["──", "job", "0", "starts"],
        ["──", "job", "1", "starts"],
        ["──", "job", "1", "ended"],
        ["──", "job", "2", "starts"],
    ]
    assert "   error: not this one\n" in answer.stdout
    assert "share" not in answer.stdout


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("sys.exit(74)", 74),
        ("sys.exit(75)", 75),
        ("sys.exit(143)", 143),
        ("signal.signal(15, signal.SIG_DFL); os.kill(os.getpid(), 15)", 143),  # it does not listen yet
    ],
)
def test_what_would_end_the_next_job_too_ends_all(end: str, code: int, tmp_path: Path) -> None:
    job = f"import os, signal, sys; open(sys.argv[1], 'w'); {end}"
    with begun([sys.executable, "-c", TWO_JOBS, job], cwd=tmp_path) as process:
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == code
    assert (
        stderr
        == "job first was stopped: no more jobs will be started; run the same command again to continue the sweep.\n"
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
    assert (
        "stopped by SIGTERM: no more jobs will be started; run the same command again to continue the sweep.\n"
        in stderr
    )
    assert not [job for job in jobs if job.is_running()]
    assert len([*sweep.glob("[!.]*/")]) == 1


def test_a_multirun_on_two_ranks_ends(tiny_overrides: list[str], tmp_path: Path) -> None:
    """Each job is a process that starts its own ranks, and none waits for those of another."""
    ranks = ["trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu"]
    answer = start([*tiny_overrides, *ranks, "name=run", "optimizer.lr=1e-3,3e-3"], "-m")
    assert answer.returncode == 0, answer.stderr
    jobs = [*(tmp_path / "runs" / "run_sweep").glob("[!.]*/")]
    assert len(jobs) == 2
    assert all(saved_steps(job)[-1] == 12 for job in jobs)
    (compares,) = [line for line in answer.stdout.splitlines() if line.endswith(" compares them")]
    assert compares.startswith(f"python report.py runs='{tmp_path}/runs/run_sweep/*'")


def test_the_jobs_read_the_configs_that_the_multirun_read(tmp_path: Path) -> None:
    hydra = f"{{output_subdir: null, run: {{dir: {tmp_path}}}, sweep: {{dir: {tmp_path}, subdir: .}}}}"
    text = f"defaults: [_self_, group: a]\nrun: none\nruns: null\nlog_dir: null\nmix_law: null\nout_dir: null\nhydra: {hydra}"
    (tmp_path / "mine.yaml").write_text(text)
    (tmp_path / "further" / "group").mkdir(parents=True)
    (tmp_path / "further" / "group" / "a.yaml").write_text("ours: 1")
    folders = ["--config-path", str(tmp_path), "--config-name", "mine", "--config-dir", str(tmp_path / "further")]
    command = [sys.executable, "report.py", "-m", *folders, "group.ours=2", "run=x,y"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "error: x is not a run" in answer.stderr  # and not: there is no setting group.ours
    assert "error: y is not a run" in answer.stderr
    assert answer.stderr.endswith("error: 2 jobs failed: run=x, run=y.\n")
    assert answer.returncode == 1
