"""Console output of all commands.

Output never stops the work: if the reader closes the pipe, the stream is closed, the disk is full or the encoding lacks
a character, only output is lost, and `output_error` reports it. Control characters in foreign text are shown as
symbols.
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

# Foreign text may contain characters that control the terminal. Newlines and tabs are kept.
_VISIBLE = {n: chr(0x2400 + n) for n in range(32) if chr(n) not in "\t\n"} | {127: "␡"}
_VISIBLE |= {n: f"\\x{n:02x}" for n in range(0x80, 0xA0)}
_VISIBLE |= {
    n: f"\\u{n:04x}" for n in range(0xD800, 0xE000)
}  # surrogates: undecodable bytes of a file name, which no encoding can represent


def escape_control_characters(text: str) -> str:
    """Replace each control character except tab and newline by a visible symbol."""
    return text.translate(_VISIBLE)


def say(text: str = "", *, end: str = "\n", error: bool = False) -> None:
    """Print a text immediately, with control characters made visible.

    Args:
        text: What to print.
        end: What to print after it.
        error: Print to standard error instead of standard output.
    """
    stream = sys.stderr if error else sys.stdout
    if stream is None:
        return
    with suppress(OSError):
        stream.write(_encodable(escape_control_characters(text) + end, stream.encoding))
        stream.flush()


class Console(rich.console.Console):
    """A rich console for foreign text: shown literally, without markup, and unable to control the terminal."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **settings)

    def render(
        self, renderable: rich.console.RenderableType, options: rich.console.ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=self._shown(segment.text))

    def render_str(self, text: str, **settings: Any) -> Text:
        return super().render_str(escape_control_characters(text), **settings)  # before rich measures the width

    def on_broken_pipe(self) -> None:
        """Stop printing. (rich would end the program.)"""
        self.quiet = True

    def _shown(self, text: str) -> str:
        return _encodable(escape_control_characters(text), self.encoding)


class _Unheard(io.FileIO):
    """Write to a descriptor. What cannot be written is dropped without an exception."""

    error: OSError | None = None
    """The first error of a write."""

    def write(self, content: Any) -> int:
        left = whole = memoryview(content).cast("B")
        try:
            while left:
                written = super().write(left)
                if written is None:  # the descriptor is non-blocking and full
                    select.select([], [self], [])
                left = left[written or 0 :]
        except OSError as error:
            self.error = self.error or error
        return len(whole)


def open_fault_tolerant_stream(
    descriptor: int, *, encoding: str | None = None, line_buffering: bool = True, write_through: bool = False
) -> io.TextIOWrapper:
    """Open a text stream to an open descriptor. Writing to it never raises.

    Args:
        descriptor: Number of the file descriptor.
        encoding: Text encoding; characters that it lacks are written as escapes. None: the locale's encoding.
        line_buffering: Flush after each line.
        write_through: Flush after each write.
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
    """Make this process independent of its readers: all standard streams exist, and writing to them never raises.

    Standard streams that a notebook or a test has replaced are left unchanged.
    """
    for descriptor in range(3):
        _keep_open(descriptor)
    if sys.stdin is None:
        sys.stdin = Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115
    sys.stdout = _guarded(sys.stdout, sys.__stdout__, 1)
    sys.stderr = _guarded(sys.stderr, sys.__stderr__, 2)
    sys.excepthook = _report


def output_error() -> OSError | None:
    """Return the error that caused output to be lost. None: nothing was lost, or the reader closed the pipe."""
    with suppress(AttributeError, OSError):
        sys.stdout.flush()
    stream = getattr(sys.stdout, "buffer", None)
    error = stream.error if isinstance(stream, _Unheard) else None
    return error if error and error.errno != errno.EPIPE else None


def _keep_open(descriptor: int) -> None:
    """Open a closed descriptor on /dev/null; otherwise the next file opened would get it and receive our output."""
    try:
        os.fstat(descriptor)
    except OSError:
        nothing = os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this descriptor
        os.set_inheritable(nothing, True)


def _guarded(stream: Any, original: Any, descriptor: int) -> Any:
    if stream is not original:
        return stream
    if stream is None:  # closed when Python started; another file may have its descriptor now
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
