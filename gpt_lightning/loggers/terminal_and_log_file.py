"""Print a run's messages to the terminal and to its log file."""

import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from gpt_lightning.console import Console, escape_control_characters
from gpt_lightning.loggers.jsonl_file import JsonlFile

_RULE = 60  # characters


class ConsoleLogger:
    """Print lines to the terminal and the run's log file, with a progress bar if standard output is a terminal.

    In a pipe, a file or a notebook the lines are plain text, regardless of environment variables.

    Args:
        log_file: File to which every line is appended, with the time.
    """

    def __init__(self, log_file: Path) -> None:
        self._log_file = JsonlFile(log_file)
        at_terminal = sys.stdout is not None and sys.stdout.isatty()
        self._console = Console(soft_wrap=True, force_terminal=at_terminal, force_jupyter=False)
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._cannot_write: dict[str, str | None] = {}

    @classmethod
    def of(cls, trainer: Any) -> "ConsoleLogger":
        """Return the console of a run, from the run's StepLog callback."""
        return next(callback.terminal for callback in trainer.callbacks if hasattr(callback, "terminal"))

    @rank_zero_only
    def note(self, text: str, *, style: str = "dim") -> None:
        """Print a line with control characters made visible. A full disk or closed terminal does not stop the run."""
        text = escape_control_characters(text)
        self._log_file.append(f"[{time.strftime('%Y-%m-%d %H:%M:%S')}] {text}")
        with suppress(OSError):
            self._console.print(Text(text, style=style))

    def complain(self, what: str, failure: OSError | None) -> None:
        """Report once that something cannot be written and why, and once that writing works again."""
        before = self._cannot_write.get(what)
        now = str(failure.strerror or failure) if failure else None
        if now != before:
            self._cannot_write[what] = now
            self.note(
                f"{what} cannot be written: {now}; its lines are kept in memory"
                if now
                else f"{what} can be written again",
                style="bold red",
            )

    def samples(self, step: int, responses: Iterable[tuple[str, str]]) -> None:
        """Print generated samples between two horizontal lines."""
        self.note(f"── samples at step {step} ".ljust(_RULE, "─"), style="cyan")
        for prompt, response in responses:
            self.note(f"{prompt.strip()} → {response.strip()}".replace("\n", "\n    "), style="cyan")
        self.note("─" * _RULE, style="cyan")

    def start_progress(self, *, done: int, total: int) -> None:
        """Show a progress bar with the number of steps and the time left, if standard output is a terminal."""
        if not self._console.is_terminal:
            return
        columns = (TextColumn("{task.description}"), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, TextColumn("left"), console=self._console, transient=True)
        self._task = self._progress.add_task("step", total=total, completed=done)
        self._progress.start()

    def advance_progress(self, done: int) -> None:
        if self._progress is not None:
            self._progress.update(self._task, completed=done)

    def say_in_progress(self, doing: str) -> None:
        """Set the description of what the progress bar counts."""
        if self._progress is not None:
            self._progress.update(self._task, description=doing)
            self._progress.refresh()

    def stop_progress(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
