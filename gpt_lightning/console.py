"""What a program says to a person: the one writer of its standard output and of its sentences.

Nobody needs to listen. A reader that goes away, a closed stream, a full disk or an encoding without the character costs what
would have been said, never the work; `output_error` tells of it. Control characters of texts that are not ours appear as signs.
"""

import errno
import io
import os
import select
import sys
import traceback
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import rich.console
from rich.segment import Segment
from rich.text import Text

# Text may hold what makes a terminal move, hide or ring. Lines and tabs stay.
_VISIBLE = {n: chr(0x2400 + n) for n in range(32) if chr(n) not in "\t\n"} | {127: "␡"}
_VISIBLE |= {n: f"\\x{n:02x}" for n in range(0x80, 0xA0)}
_VISIBLE |= {
    n: f"\\u{n:04x}" for n in range(0xD800, 0xE000)
}  # bytes of a file name that are no text: no encoding has them


def escape_control_characters(text: str) -> str:
    """The same text with a sign for each control character but tabs and ends of lines."""
    return text.translate(_VISIBLE)


def say(text: str = "", *, end: str = "\n", error: bool = False) -> None:
    """Print a text, its control characters visible, at once.

    Args:
        text: what to say.
        end: what follows it.
        error: to standard error instead of standard output.
    """
    stream = sys.stderr if error else sys.stdout
    if stream is None:
        return
    with suppress(OSError):
        stream.write(_encodable(escape_control_characters(text) + end, stream.encoding))
        stream.flush()


class Console(rich.console.Console):
    """rich's console for texts that are not ours: they are shown as they are, hold no markup and cannot act on a terminal."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **settings)

    def render(
        self, renderable: rich.console.RenderableType, options: rich.console.ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=self._shown(segment.text))

    def render_str(self, text: str, **settings: Any) -> Text:
        return super().render_str(escape_control_characters(text), **settings)  # before its width is measured

    def on_broken_pipe(self) -> None:
        """Say no more. (rich's own would end the program.)"""
        self.quiet = True

    def _shown(self, text: str) -> str:
        return _encodable(escape_control_characters(text), self.encoding)


class _Unheard(io.FileIO):
    """Writes to a descriptor while it takes what is written. What it does not take is lost without an error."""

    error: OSError | None = None
    """The first that a write met."""

    def write(self, content: Any) -> int:
        left = whole = memoryview(content).cast("B")
        try:
            while left:
                written = super().write(left)
                if written is None:  # it is set not to block, and is full
                    select.select([], [self], [])
                left = left[written or 0 :]
        except OSError as error:
            self.error = self.error or error
        return len(whole)


def open_fault_tolerant_stream(
    descriptor: int, *, encoding: str | None = None, line_buffering: bool = True, write_through: bool = False
) -> io.TextIOWrapper:
    """A text stream to a descriptor that stays open: no write to it fails.

    Args:
        descriptor: where to write.
        encoding: of the text; what it lacks is written as an escape. None: the locale's.
        line_buffering: write each line at once.
        write_through: write everything at once.
    """
    raw: Any = _Unheard(descriptor, "wb", closefd=False)
    return io.TextIOWrapper(
        raw,
        encoding=encoding,
        errors="backslashreplace",
        line_buffering=line_buffering,
        write_through=write_through,
    )


def guard_streams() -> None:
    """Make this process independent of whoever listens: it has all standard streams, and no write to them fails.

    A stream that a notebook or a test has put in the place of a standard one is left alone.
    """
    for descriptor in range(3):
        _keep_open(descriptor)
    if sys.stdin is None:
        sys.stdin = Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115
    sys.stdout = _guarded(sys.stdout, sys.__stdout__, 1)
    sys.stderr = _guarded(sys.stderr, sys.__stderr__, 2)
    sys.excepthook = _report


def output_error() -> OSError | None:
    """Why something of what was printed is missing from standard output; None: nothing is, or its reader has gone."""
    with suppress(AttributeError, OSError):
        sys.stdout.flush()
    stream = getattr(sys.stdout, "buffer", None)
    error = stream.error if isinstance(stream, _Unheard) else None
    return error if error and error.errno != errno.EPIPE else None


def _keep_open(descriptor: int) -> None:
    """Let a closed descriptor lead nowhere: the next file that is opened would take its place, and get what is printed."""
    try:
        os.fstat(descriptor)
    except OSError:
        nothing = os.open(os.devnull, os.O_RDWR)  # the lowest that is free: this one
        os.set_inheritable(nothing, True)


def _guarded(stream: Any, original: Any, descriptor: int) -> Any:
    if stream is not original:
        return stream
    if stream is None:  # it was closed as Python began; a file may have its descriptor by now
        return open_fault_tolerant_stream(os.open(os.devnull, os.O_WRONLY))
    with suppress(OSError):
        stream.flush()
    return open_fault_tolerant_stream(
        descriptor,
        encoding=stream.encoding,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    say("".join(traceback.format_exception(kind, error, trace)), end="", error=True)


def _encodable(text: str, encoding: str | None) -> str:
    encoding = encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
