"""Locks of folders: one process at a time works in a folder, and others see who that is."""

import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path

from filelock import FileLock, Timeout

from gpt_lightning.console import say


@contextmanager
def exclusive_lock(folder: Path, *, doing: str = "prepared") -> Iterator[None]:
    """Context manager: be the only process that works in a folder.

    The folder is created if necessary, and removed at the end if it is empty. The kernel releases the lock when the
    process exits for any reason. The file `owner` in the folder names the process.

    Args:
        folder: The folder to lock.
        doing: What this process does with the folder, as a participle, for the message to a second process.

    Raises:
        ValueError: Another process holds the lock; the message names it.
    """
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    owner, lock = folder / "owner", FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ValueError(
            f"{folder} is being {doing} by {lock_owner(folder)}: wait until that process ends, or stop it."
        ) from error
    try:
        with suppress(OSError):  # the lock is held even if `owner` cannot be written because the disk is full
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            owner.write_text(f"process {os.getpid()} on {socket.gethostname()} since {since}")
        yield
    finally:
        for path in (owner, folder / "lock"):
            with suppress(OSError):  # do not hide the exception that ended the work
                path.unlink(missing_ok=True)
        lock.release()
        with suppress(OSError):
            for path in (folder, *new[1:]):
                path.rmdir()


@contextmanager
def wait_for_lock(folder: Path, *, meanwhile: Callable[[], object]) -> Iterator[None]:
    """As `exclusive_lock`, but wait until the lock is free.

    Args:
        folder: The folder to lock, inside the folder that is prepared.
        meanwhile: Called repeatedly while another process holds the lock; the function should sleep briefly.
    """
    with ExitStack() as held:
        for times in count():
            try:
                held.enter_context(exclusive_lock(folder))
                break
            except ValueError:
                if times == 0:
                    say(f"{folder.parent} is being prepared by {lock_owner(folder)}: waiting for that process")
                meanwhile()
        yield


def is_locked(folder: Path) -> bool:
    """Return whether a process holds the lock of a folder. The lock is taken only for the duration of the check."""
    try:
        with (folder / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is no lock file; other problems with the folder are reported when it is used
        return False
    return False


def lock_owner(folder: Path) -> str:
    """Return the description of the process that works in a folder, from its file `owner`."""
    with suppress(OSError):
        return (folder / "owner").read_text(encoding="utf-8") or "another process"
    return "another process"
