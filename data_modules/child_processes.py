"""Child processes with one pipe each. Any of them can be killed at any time without blocking the parent.

The processes share no lock, queue or memory. The start method is "spawn", so they inherit no locks and no open files.
They ignore the signals that end a run, because a terminal and Slurm send these signals to every process. They exit when
the parent exits for any reason.
"""

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.util import Finalize
from typing import Any, NamedTuple

_NOT_FOR_CHILDREN = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


class ChildProcess(NamedTuple):
    """A child process and the parent's end of its pipe."""

    process: SpawnProcess
    connection: Connection


class ChildProcesses:
    """Several child processes that do the same work.

    Args:
        work: A module-level function, called in each child with `argument` and the child's end of the pipe. The
            function returns when the pipe is closed.
        argument: Passed to `work`. If a child cannot unpickle it, the child sends the exception.
        number: Number of child processes.
    """

    def __init__(self, work: Callable[[Any, Connection], None], argument: Any, number: int) -> None:
        context = multiprocessing.get_context("spawn")
        pickled = pickle.dumps((work, argument), protocol=pickle.HIGHEST_PROTOCOL)
        self.all: list[ChildProcess] = []
        self.end = Finalize(self, _kill, args=(self.all,), exitpriority=10)
        """Kills all children when it is called, when this object is deleted, or when the program ends."""
        resource_tracker.ensure_running()  # now, because starting a child would do it and unblock the signals
        with _signals_wait():  # the children inherit the blocked signals
            for _ in range(number):
                ours, theirs = context.Pipe()
                process = context.Process(target=_live, args=(pickled, theirs), daemon=True)
                self.all.append(ChildProcess(process, ours))
                process.start()
                theirs.close()


@contextmanager
def _signals_wait() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _NOT_FOR_CHILDREN)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _kill(children: list[ChildProcess]) -> None:
    for process, _ in children:
        if process.pid is not None:  # None if it could not be started
            process.kill()
            process.join()


def _live(pickled: bytes, connection: Connection) -> None:
    """Main function of a child. It watches its parent before it imports what the work needs, which may take seconds."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError, ConnectionError):  # the parent has exited
        try:
            work, argument = pickle.loads(pickled)
        except Exception as error:  # for example, a file was deleted
            connection.send(error)
            return
        work(argument, connection)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
