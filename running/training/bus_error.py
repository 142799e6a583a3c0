"""Message for SIGBUS, which the kernel sends when a memory-mapped file was truncated.

Without this message, the program ends silently.

Python's own signal handlers run only after the failed instruction, which would fail again and again. Therefore the
handler is registered with the C library. The handler runs in the thread that read the file, prints what is wrong, and
ends the program.
"""

import ctypes
import os
import signal
from collections.abc import Callable
from contextlib import suppress

_Handler = ctypes.CFUNCTYPE(None, ctypes.c_int)
_handler: object = None  # keeps the handler alive, because the C library only has its address


def install_bus_error_message(touched: Callable[[], list[str]]) -> None:
    """On SIGBUS, print a message and exit with code 66, which means that a data file has changed.

    Args:
        touched: returns the memory-mapped files that have changed; empty if unknown.
    """
    global _handler  # there is one handler per signal, too

    @_Handler
    def end(number: int) -> None:
        files: list[str] = []
        with suppress(Exception):
            files = touched()
        which = ", ".join(files[:3]) or "a memory-mapped file"
        said = f"error: {which} was truncated or cannot be read: restore the file and run the same command again.\n"
        os.write(2, said.encode(errors="backslashreplace"))
        os._exit(os.EX_NOINPUT)

    library = ctypes.CDLL(None)
    library.signal.argtypes, library.signal.restype = (ctypes.c_int, _Handler), ctypes.c_void_p
    library.signal(signal.SIGBUS, end)
    _handler = end
