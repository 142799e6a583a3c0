"""Show the progress of a preparation: a progress bar in a terminal, otherwise a line every minute."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from gpt_lightning.console import Console

_LINE_EVERY = 60.0  # seconds between lines if standard output is not a terminal


class PreparationProgress(NamedTuple):
    """The progress of a preparation."""

    documents: int
    tokens: int
    share: float | None  # completed share, 0 to 1; None: unknown


@contextmanager
def progress_display(name: str, console: Console) -> Iterator[Callable[[PreparationProgress], None]]:
    """Context manager: show documents, tokens, tokens per second and remaining time. Yields the function to call with
    the progress.
    """
    begin = last_line = time.monotonic()
    first: PreparationProgress | None = None  # progress of earlier starts, which does not count for the speed

    def text(now: PreparationProgress) -> str:
        assert first is not None
        speed = (now.tokens - first.tokens) / max(1e-9, time.monotonic() - begin)
        return f"{now.documents:,} documents, {now.tokens:,} tokens, {speed:,.0f} tokens/s"

    columns = TextColumn("{task.description}"), BarColumn(bar_width=20), TimeElapsedColumn(), TimeRemainingColumn()
    with Bar(
        *columns, TextColumn("{task.fields[told]}"), console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(name, total=None, told="")

        def show(now: PreparationProgress) -> None:
            nonlocal first, last_line
            first = first or now
            bar.update(task, total=None if now.share is None else 1.0, completed=now.share or 0.0, told=text(now))
            if not console.is_terminal and time.monotonic() - last_line > _LINE_EVERY:
                last_line = time.monotonic()
                console.print(f"{name}: {text(now)}" + (f", {now.share:.1%} done" if now.share is not None else ""))

        yield show
