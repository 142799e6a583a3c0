"""How far a preparation is: a bar in a terminal, now and then a line in a file."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from gpt_lightning.console import Console

_LINE_EVERY = 60.0  # seconds, where no bar can be drawn


class PreparationProgress(NamedTuple):
    """How far it is."""

    documents: int
    tokens: int
    share: float | None  # of the whole, from 0 to 1; None: it cannot be known


@contextmanager
def show_progress(name: str, console: Console) -> Iterator[Callable[[PreparationProgress], None]]:
    """Documents, tokens, tokens a second and the time that is left, as the callable is told."""
    begin = last_line = time.monotonic()
    first: PreparationProgress | None = None  # what an earlier start had done already costs no time now

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
