"""Real training processes that can be watched, signalled and killed: forks of nursery.py, or the program itself."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import pytest

import launch
from tests.conftest import ROOT

Fault = tuple[str, dict[str, Any]]  # a function of injected.py, and its arguments
MARK = "GPT_LIGHTNING_TEST_MARK"  # environment variable
PATIENCE = 120.0  # seconds for a victim to end; most take three where nothing else runs


class Nursery:
    """The forking process of nursery.py."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.nursery"],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},  # no threads: it is going to be forked
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._heard = b""
        self._codes: dict[int, int] = {}
        self._hear(until=lambda answer: "born" in answer, timeout=PATIENCE)

    def bear(
        self, overrides: Sequence[str], *, folder: Path, faults: Iterable[Fault] = (), environment: Any = None
    ) -> "Victim":
        """Start `python train.py <overrides>`; its output goes into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for stream in ("stdout", "stderr"):
            (folder / stream).touch()
        request = {"config": composed(overrides), "folder": str(folder), "environment": environment or {}}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request | {"faults": list(faults)}).encode() + b"\n")
        self._process.stdin.flush()
        return Victim(self, self._hear(until=lambda answer: "born" in answer, timeout=PATIENCE)["born"], folder)

    def code_of(self, pid: int, *, timeout: float) -> int | None:
        """How a victim ended, as subprocess says it: its exit code, or minus the signal; None: it lives."""
        if pid not in self._codes:
            self._hear(until=lambda answer: answer.get("dead") == pid, timeout=timeout)
        return self._codes.get(pid)

    def close(self) -> None:
        """End it, and all victims with it."""
        self._process.communicate(timeout=PATIENCE)

    def _hear(self, *, until: Callable[[dict[str, int]], bool], timeout: float) -> dict[str, int]:
        """Its next answer of a kind; what it says of other victims is kept."""
        stop = time.monotonic() + timeout
        while line := self._next_line(max(0.0, stop - time.monotonic())):
            answer: dict[str, int] = json.loads(line)
            if "dead" in answer:
                self._codes[answer["dead"]] = os.waitstatus_to_exitcode(answer["status"])
            if until(answer):
                return answer
        return {}

    def _next_line(self, timeout: float) -> bytes:
        """What it says next; nothing, if that takes longer."""
        stop = time.monotonic() + timeout
        while b"\n" not in self._heard:
            if not select.select([self._process.stdout], [], [], max(0.0, stop - time.monotonic()))[0]:
                return b""
            assert self._process.stdout is not None
            said = os.read(self._process.stdout.fileno(), 4096)
            assert said, "the nursery is gone"
            self._heard += said
        line, _, self._heard = self._heard.partition(b"\n")
        return line


class Shell:
    """Starts the program as a user does, imports and all; nothing can be injected."""

    def __init__(self) -> None:
        self._started: dict[int, subprocess.Popen[bytes]] = {}

    def bear(
        self, overrides: Sequence[str], *, folder: Path, faults: Iterable[Fault] = (), environment: Any = None
    ) -> "Victim":
        """As `Nursery.bear`, without faults."""
        assert not [*faults]
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "stdout").open("wb") as stdout, (folder / "stderr").open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "train.py", *overrides],
                cwd=ROOT,
                env=os.environ | {"OMP_NUM_THREADS": "1"} | (environment or {}),
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        self._started[process.pid] = process
        return Victim(self, process.pid, folder)

    def code_of(self, pid: int, *, timeout: float) -> int | None:
        """As `Nursery.code_of`."""
        try:
            return self._started[pid].wait(timeout)
        except subprocess.TimeoutExpired:
            return None


def composed(overrides: Sequence[str]) -> dict[str, Any]:
    """The config of a command line; those that differ only in their paths are composed once."""
    paths = dict(override.split("=", 1) for override in overrides if override.startswith(("runs_dir=", "resume=")))
    config = _composed(tuple(override for override in overrides if override.split("=")[0] not in paths)) | paths
    run = f"{config['runs_dir']}/{config['name']}"
    return config | {"run_dir": run, "sweep_dir": f"{run}_sweep"}


@cache
def _composed(overrides: tuple[str, ...]) -> dict[str, Any]:
    return launch.compose_config("train", overrides)


def marked(mark: str) -> list[str]:
    """The command lines of all processes that live and have this value of `MARK` in their environment, inherited or not."""
    lines = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it is another user's, or has just ended
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                lines.append(" ".join(process.cmdline()))
    return lines


@dataclass
class Victim:
    """A training process."""

    parent: Nursery | Shell
    pid: int
    folder: Path

    @property
    def output(self) -> str:
        """What it has said so far, on both of its streams."""
        return "".join((self.folder / name).read_text(encoding="utf-8") for name in ("stdout", "stderr"))

    def lives(self) -> bool:
        return self.parent.code_of(self.pid, timeout=0) is None

    def send(self, signal_number: int) -> None:
        """To it alone; nothing if it has ended already."""
        if self.lives():
            os.kill(self.pid, signal_number)

    def send_to_group(self, signal_number: int) -> None:
        """To it and to all that it started."""
        if self.lives():
            os.killpg(self.pid, signal_number)

    def wait(self, timeout: float = PATIENCE) -> int:
        """Its exit code, or minus the signal that ended it; a victim that hangs says where and is killed."""
        code = self.parent.code_of(self.pid, timeout=timeout)
        if code is None:
            os.kill(self.pid, signal.SIGUSR2)
            time.sleep(0.5)
            self.send_to_group(signal.SIGKILL)
            self.parent.code_of(self.pid, timeout=PATIENCE)
            pytest.fail(f"it still lived after {timeout:g} s:\n{self.output[-6000:]}")
        return code

    def wait_until(self, happened: Callable[[], Any], *, every: float = 0.002, patience: float = PATIENCE) -> None:
        """Until something is so, or it has ended."""
        stop = time.monotonic() + patience
        while not happened() and self.lives() and time.monotonic() < stop:
            time.sleep(every)
