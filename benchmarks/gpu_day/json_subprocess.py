"""Processes that a stage starts and talks to: lines of JSON, one answer for one question."""

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

_MARK = "\x1e"  # before an answer: libraries print as well


class ChildBroke(Exception):
    """The process ended, or said an error, where an answer was due."""


class Child:
    """A module of this package in a process of its own.

    Args:
        module: its name in this package.
        argument: what `argument` gives it.
        log: the file for all output except the answer.
        launcher: what Python runs it by, such as torchrun's module; nothing: -m.
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
            until: seconds since the epoch.

        Raises:
            ChildBroke: it ended first, or answered an error.
            TimeoutError: it took longer.
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
        with suppress(BrokenPipeError):  # its end is read as an answer
            self._process.stdin.write(json.dumps(question) + "\n")
        return self.answer(until=until)

    def end(self) -> None:
        """Kill it, if it has not ended."""
        assert self._process.stdin is not None
        self._process.kill()
        self._process.wait()
        with suppress(BrokenPipeError):  # a question that nobody read
            self._process.stdin.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                if line.startswith(_MARK):
                    self._answers.put(json.loads(line[1:]))
        self._answers.put(None)


def argument() -> dict[str, Any]:
    """In a child: what it was started with."""
    given: dict[str, Any] = json.loads(sys.argv[1])
    return given


def questions() -> Iterator[dict[str, Any]]:
    """In a child: what is asked, until nobody asks any more."""
    for line in sys.stdin:
        yield json.loads(line)


def give(answer: Mapping[str, Any]) -> None:
    """In a child: answer."""
    print(_MARK + json.dumps(answer), flush=True)
