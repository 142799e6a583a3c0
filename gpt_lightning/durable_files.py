"""What keeps a folder whole: one process at a time is at work in it, and files come to be as a whole or not at all."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from gpt_lightning.console import say


@contextmanager
def exclusive_lock(folder: Path, *, doing: str = "prepared") -> Iterator[None]:
    """Be the only process at work in a folder, which is made if need be, and unmade if nothing is in it at the end.

    The kernel holds the lock, so that it ends with its owner, however that dies; the file `owner` says who it is.

    Args:
        folder: where to work.
        doing: what is done to it, for the process that comes second.

    Raises:
        ValueError: another process is at work there, and which one.
    """
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    owner, lock = folder / "owner", FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ValueError(f"{folder} is being {doing} by {lock_owner(folder)}: wait for it, or stop it.") from error
    try:
        with suppress(OSError):  # who cannot sign, as the disk is full, is the owner all the same
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            owner.write_text(f"process {os.getpid()} on {socket.gethostname()} since {since}")
        yield
    finally:
        for path in (owner, folder / "lock"):
            with suppress(OSError):  # what ended the work is more worth telling
                path.unlink(missing_ok=True)
        lock.release()
        with suppress(OSError):
            for path in (folder, *new[1:]):
                path.rmdir()


@contextmanager
def wait_for_lock(folder: Path, *, meanwhile: Callable[[], object]) -> Iterator[None]:
    """As `exclusive_lock`, but wait for a process that is at work there.

    Args:
        folder: where to work, in the folder that is prepared.
        meanwhile: what to do, again and again, as long as another process is at work.
    """
    with ExitStack() as held:
        for times in count():
            try:
                held.enter_context(exclusive_lock(folder))
                break
            except ValueError:
                if times == 0:
                    say(f"{folder.parent} is being prepared by {lock_owner(folder)}, which is waited for")
                meanwhile()
        yield


def is_locked(folder: Path) -> bool:
    """Whether a process is at work in a folder; the lock is held no longer than the question."""
    try:
        with (folder / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is none, or what is wrong with the folder whoever works there will say
        return False
    return False


def lock_owner(folder: Path) -> str:
    """Who is at work in a folder, as that process has signed."""
    with suppress(OSError):
        return (folder / "owner").read_text(encoding="utf-8") or "another process"
    return "another process"


def write_durably(path: Path, content: dict[str, Any]) -> None:
    """Replace a JSON file as a whole, so that it survives a loss of power."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(json.dumps(content, indent=2) + "\n")
        sync_file(file)
    temporary.replace(path)
    sync_folder(path.parent)


def sync_file(file: IO[Any]) -> None:
    """Bring to the disk what was written into a file."""
    file.flush()
    os.fsync(file.fileno())


def make_folder(folder: Path) -> None:
    """Make a folder, if there is none, that survives a loss of power."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Bring to the disk which files are in a folder, and what they are called."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
