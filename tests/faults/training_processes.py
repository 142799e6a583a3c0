"""Real training processes that can be watched, signalled and killed: by way of forked_training.py, or the program itself."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests import fork_client
from tests.conftest import ROOT, composed

Fault = tuple[str, dict[str, Any]]  # a function of fault_injection.py, and its arguments
MARK = "GPT_LIGHTNING_TEST_MARK"  # environment variable
PATIENCE = 120.0  # seconds for a victim to end; most take three where nothing else runs


class Nursery:
    """Starts victims as forked_training.py describes them."""

    def __init__(self) -> None:
        self._born: dict[int, subprocess.Popen[bytes]] = {}

    def bear(
        self, overrides: Sequence[str], *, folder: Path, faults: Iterable[Fault] = (), environment: Any = None
    ) -> "Victim":
        """Start `python train.py <overrides>`; its output goes into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "stdout").open("ab") as stdout, (folder / "stderr").open("ab") as stderr:
            process = self.start(overrides, faults)(
                cwd=ROOT,
                env=os.environ | {"OMP_NUM_THREADS": "1"} | (environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        self._born[process.pid] = process
        return Victim(self, process.pid, folder)

    def start(self, overrides: Sequence[str], faults: Iterable[Fault]) -> Callable[..., subprocess.Popen[bytes]]:
        asked = json.dumps({"config": composed(overrides), "faults": list(faults)})
        return partial(subprocess.Popen, [sys.executable, "-m", "tests.faults.forked_training", asked])

    def code_of(self, pid: int, *, timeout: float) -> int | None:
        """How a victim ended, as subprocess says it: its exit code, or minus the signal; None: it lives."""
        try:
            return self._born[pid].wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def close(self) -> None:
        """End all victims, and what they started."""
        for pid, process in self._born.items():
            if process.poll() is None:
                os.killpg(pid, signal.SIGKILL)
                process.wait(PATIENCE)


class Shell(Nursery):
    """Starts the program as a user does, imports and all; nothing can be injected."""

    def start(self, overrides: Sequence[str], faults: Iterable[Fault]) -> Callable[..., subprocess.Popen[bytes]]:
        assert not [*faults]
        return partial(fork_client.Process, [sys.executable, "train.py", *overrides])


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

    parent: Nursery
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
