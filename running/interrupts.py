"""Ctrl-C before a program has anything to save prints one sentence and no traceback."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType


def exit_on_interrupt() -> None:
    """Until `interrupt_message`, let Ctrl-C end this process at once, because a command's imports take seconds."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not if it is ignored
        signal.signal(signal.SIGINT, _end)


@contextmanager
def interrupt_message() -> Iterator[None]:
    """Inside the context, Ctrl-C raises KeyboardInterrupt, so that code can clean up.

    If nothing catches this exception, the process ends.
    """
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        _say()
        sys.exit(130)


def interrupt_sentence() -> str:
    """The message about Ctrl-C. For a training run, the message says that nothing is lost."""
    is_training = Path(sys.argv[0]).stem == "train"
    return f"error: stopped by SIGINT{' before there was anything to save' if is_training else ''}."


def _end(number: int, frame: FrameType | None) -> None:
    _say()
    os._exit(130)


def _say() -> None:
    with suppress(OSError):  # the streams are not guarded yet
        os.write(2, f"{interrupt_sentence()}\n".encode())
