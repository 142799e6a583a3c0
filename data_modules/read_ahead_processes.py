"""Micro-batches that child processes read ahead of the training, for disks that let one process wait."""

import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue

from data_modules.child_processes import ChildProcess, ChildProcesses
from data_modules.sequence_reader import RawBatch
from data_modules.training_batches import TrainingBatches

_ASKED_AHEAD = 2  # micro-batches of each reader; it reads the next one while it waits to be rid of the last one
_LOOK_EVERY = 0.5  # seconds
_SILENCE = 300.0  # seconds that a reader may take for one micro-batch,
_SILENCE_AT_A_STOP = 10.0  # and once the run was told to stop: a batch system kills it soon after
_GOES_ON = "The same command goes on from the newest checkpoint; with data.workers=0 it reads without such processes."


class ReaderLostError(Exception):
    """A process that reads ahead was killed or does not answer; the same command can go on."""

    exit_code = os.EX_TEMPFAIL


class BatchPrefetcher:
    """The micro-batches of a `TrainingBatches` one after the other, from any of them on.

    Args:
        batches: which there are.
        workers: processes that read them.
        told_to_stop: whether the run was told to stop: then it waits for a reader no longer than it must.
        check_files: raises what is wrong with the files that are read, if a process may have died of that.

    Raises:
        ReaderLostError: one of the processes is gone, or has not answered for minutes.
    """

    def __init__(
        self,
        batches: TrainingBatches,
        workers: int,
        *,
        told_to_stop: Callable[[], bool],
        check_files: Callable[[], None],
    ) -> None:
        self._told_to_stop, self._check_files = told_to_stop, check_files
        self._next: int | None = None  # the micro-batch that is asked for next
        try:
            self._children = ChildProcesses(_read, batches, workers)
        except ConnectionError as error:  # it was gone before it had heard what to do
            raise ReaderLostError(f"a process that reads the data ahead was gone at its start. {_GOES_ON}") from error
        self._readers = [_Reader(child) for child in self._children.all]

    def __getitem__(self, b: int) -> RawBatch:
        end = b + _ASKED_AHEAD * len(self._readers)
        try:
            for ahead in range(b if self._next is None else self._next, end):
                self._readers[ahead % len(self._readers)].ask(ahead)
            self._next = end
            return self._answer(self._readers[b % len(self._readers)])
        except (ReaderLostError, ValueError, OSError):
            self._check_files()
            raise

    def end(self) -> None:
        """End the processes."""
        self._children.end()

    def _answer(self, reader: "_Reader") -> RawBatch:
        began = time.monotonic()
        while True:
            try:
                answer = reader.answers.get(timeout=_LOOK_EVERY)
                break
            except Empty:
                silence = time.monotonic() - began
                if silence > (_SILENCE_AT_A_STOP if self._told_to_stop() else _SILENCE):
                    raise ReaderLostError(
                        f"process {reader.child.process.pid}, which reads the data ahead, has not answered for {silence:.0f} "
                        f"seconds: see whether the disk with the data does. {_GOES_ON}"
                    ) from None
        if answer is None:
            raise reader.lost()
        if isinstance(answer, Exception):
            raise answer
        return answer


class _Reader:
    """A process that reads, and a thread here that takes its answers as they come."""

    def __init__(self, child: ChildProcess) -> None:
        self.child = child
        self.answers: SimpleQueue[RawBatch | Exception | None] = SimpleQueue()
        """What it read, in the order in which it was asked; None: its pipe is closed."""
        threading.Thread(target=self._listen, daemon=True, name="read-ahead").start()

    def ask(self, b: int) -> None:
        """Have it read a micro-batch."""
        try:
            self.child.connection.send(b)
        except ConnectionError as error:
            raise self.lost() from error

    def lost(self) -> ReaderLostError:
        """What became of it, once its pipe is closed."""
        process = self.child.process
        process.join()
        code = process.exitcode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        hint = ", perhaps for want of memory" if code == -signal.SIGKILL else ""
        return ReaderLostError(f"process {process.pid}, which reads the data ahead, {how}{hint}. {_GOES_ON}")

    def _listen(self) -> None:
        try:
            while True:
                self.answers.put(pickle.loads(self.child.connection.recv_bytes()))
        except (EOFError, OSError):
            self.answers.put(None)


def _read(batches: TrainingBatches, connection: Connection) -> None:
    """What a reader does."""
    while True:
        b = connection.recv()
        # plain pickle: multiprocessing's own would bring tensors into shared memory
        connection.send_bytes(pickle.dumps(_batch(batches, b), protocol=pickle.HIGHEST_PROTOCOL))


def _batch(batches: TrainingBatches, b: int) -> RawBatch | Exception:
    try:
        return batches[b]
    except Exception as error:
        error.add_note(traceback.format_exc())
        return error
