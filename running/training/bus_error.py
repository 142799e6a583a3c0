"""A file that is read in place and cut off meanwhile: the kernel answers with SIGBUS, which would end the program without a word.

Python's own handlers run after the instruction that failed, which would fail again and again; so this one is given to the C
library. It runs in the thread that has read, says what is wrong, and ends the program.
"""

import ctypes
import os
import signal
from collections.abc import Callable
from contextlib import suppress

_Handler = ctypes.CFUNCTYPE(None, ctypes.c_int)
_handler: object = None  # kept, as the C library knows its address alone


def install_bus_error_message(touched: Callable[[], list[str]]) -> None:
    """From now on SIGBUS ends the program with a sentence and the exit code of data that has changed.

    Args:
        touched: the files that are read in place and are not what they were; none, if nobody knows.
    """
    global _handler  # there is one of each signal, too

    @_Handler
    def end(number: int) -> None:
        files: list[str] = []
        with suppress(Exception):
            files = touched()
        which = ", ".join(files[:3]) or "a file that is read in place"
        said = f"error: {which} was cut off or cannot be read: put back what was there, and start the same command again.\n"
        os.write(2, said.encode(errors="backslashreplace"))
        os._exit(os.EX_NOINPUT)

    library = ctypes.CDLL(None)
    library.signal.argtypes, library.signal.restype = (ctypes.c_int, _Handler), ctypes.c_void_p
    library.signal(signal.SIGBUS, end)
    _handler = end
