"""Processes that a stage starts and exchanges lines of JSON with, one answer per question."""

import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

_MARK = "\x1e"  # in front of an answer, because libraries print too


class ChildBroke(Exception):
    """The process ended or reported an error instead of an answer."""


class Child:
    """A module of this package in its own process.

    Args:
        module: its name in this package.
        argument: returned by `argument` in the process.
        log: file for all output except answers.
        launcher: arguments of Python in front of the module, such as torchrun's module.
    """

    def __init__(self, module: str, argument: Mapping[str, Any], *, log: Path, launcher: Sequence[str] = ()) -> None:
        command = [
            sys.executable,
            "-W",
            "ignore",
            *launcher,
            "-m",
            f"benchmarks.gpu_day.{module}",
            json.dumps(argument),
        ]
        self._log = log
        with log.open("w", encoding="utf-8") as errors:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, bufsize=1
            )
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def answer(self, *, until: float) -> dict[str, Any]:
        """The next answer.

        Args:
        Args:
            until: deadline, in seconds since the epoch.

        Raises:
            ChildBroke: the process ended first, or reported an error.
            TimeoutError: the deadline passed.
        """
        try:
            answer = self._answers.get(timeout=max(0.1, until - time.time()))
        except queue.Empty:
            raise TimeoutError("no time is left") from None
        if answer is None:
            said = [
                line for line in self._log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()
            ]
            raise ChildBroke(said[-1] if said else f"exit code {self._process.wait()}")
        if "error" in answer:
            raise ChildBroke(answer["error"])
        return answer

    def ask(self, question: Mapping[str, Any], *, until: float) -> dict[str, Any]:
        """Send a question and wait for its answer; raises as `answer`."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # the process ended, which `answer` reports
            self._process.stdin.write(json.dumps(question) + "\n")
        return self.answer(until=until)

    def end(self) -> None:
        """Kill the process if it is still running."""
        assert self._process.stdin is not None
        self._process.kill()
        self._process.wait()
        with suppress(BrokenPipeError):  # an unread question
            self._process.stdin.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                if line.startswith(_MARK):
                    self._answers.put(json.loads(line[1:]))
        self._answers.put(None)


def argument() -> dict[str, Any]:
    """In a child process: the argument that it was started with."""
    given: dict[str, Any] = json.loads(sys.argv[1])
    return given


def questions() -> Iterator[dict[str, Any]]:
    """In a child process: yield the questions until the parent closes the pipe."""
    for line in sys.stdin:
        yield json.loads(line)


def give(answer: Mapping[str, Any]) -> None:
    """In a child process: send an answer."""
    print(_MARK + json.dumps(answer), flush=True)
