"""Child processes, each with a pipe of its own: any of them can be killed at any moment, and nobody waits for it.

They share no lock, no queue and no memory. They are started anew ("spawn"), so they inherit no lock and no open file. They do not
hear the signals that end a run, as a terminal and Slurm send them to every process of it; they end with the process that
started them, however that dies.
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
    """A child process, and our end of its pipe."""

    process: SpawnProcess
    connection: Connection


class ChildProcesses:
    """Child processes that all do the same.

    Args:
        work: what each of them does until its pipe is closed: a function of a module, given `argument` and its end of the pipe.
        argument: what they work with; one that cannot be unpickled there is answered with the exception.
        number: how many there are.
    """

    def __init__(self, work: Callable[[Any, Connection], None], argument: Any, number: int) -> None:
        context = multiprocessing.get_context("spawn")
        pickled = pickle.dumps((work, argument), protocol=pickle.HIGHEST_PROTOCOL)
        self.all: list[ChildProcess] = []
        self.end = Finalize(self, _kill, args=(self.all,), exitpriority=10)
        """Leave nothing of them, whatever they are doing; also when this object or the program ends."""
        resource_tracker.ensure_running()  # as the first of them would do, and let the signals through again
        with _signals_wait():  # the children inherit it
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
        if process.pid is not None:  # else it could not be started
            process.kill()
            process.join()


def _live(pickled: bytes, connection: Connection) -> None:
    """A child's whole life. It watches its parent before it imports what the work needs, which may take seconds."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError, ConnectionError):  # nobody is left to be answered
        try:
            work, argument = pickle.loads(pickled)
        except Exception as error:  # a file that is gone by now
            connection.send(error)
            return
        work(argument, connection)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
