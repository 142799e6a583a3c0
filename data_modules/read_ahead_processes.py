"""Child processes that read micro-batches ahead of training, for disks with high latency."""

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

_ASKED_AHEAD = 2  # requested micro-batches per reader; it reads the next while the last one waits to be received
_LOOK_EVERY = 0.5  # seconds between checks
_SILENCE = 300.0  # seconds after which a reader without an answer is considered lost
_SILENCE_AT_A_STOP = 10.0  # the same once the run was asked to stop, because a batch system kills it soon after
_GOES_ON = (
    "Run the same command again to resume from the newest checkpoint; data.workers=0 reads without such processes."
)


class ReaderLostError(Exception):
    """A process that reads ahead was killed or does not answer; the run can be resumed with the same command."""

    exit_code = os.EX_TEMPFAIL


class BatchPrefetcher:
    """Read the micro-batches of a `TrainingBatches` in order, starting at any micro-batch.

    Args:
        batches: The micro-batches.
        workers: Number of reading processes.
        told_to_stop: Whether the run was asked to stop; then waiting for a reader is limited to ten seconds.
        check_files: Raises an error if files were changed while they were being read, which may have crashed a process.

    Raises:
        ReaderLostError: A process has exited, or has not answered for five minutes.
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
        self._next: int | None = None  # the micro-batch to request next
        try:
            self._children = ChildProcesses(_read, batches, workers)
        except ConnectionError as error:  # a process exited before it received its work
            raise ReaderLostError(f"a process that reads data ahead exited at its start. {_GOES_ON}") from error
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
        """Kill the processes."""
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
                        f"process {reader.child.process.pid}, which reads data ahead, has not answered for "
                        f"{silence:.0f} seconds: check the disk that holds the data. {_GOES_ON}"
                    ) from None
        if answer is None:
            raise reader.lost()
        if isinstance(answer, Exception):
            raise answer
        return answer


class _Reader:
    """A reading process, and a thread of this process that receives its answers."""

    def __init__(self, child: ChildProcess) -> None:
        self.child = child
        self.answers: SimpleQueue[RawBatch | Exception | None] = SimpleQueue()
        """What the process read, in the order of the requests; None: the pipe of the process is closed."""
        threading.Thread(target=self._listen, daemon=True, name="read-ahead").start()

    def ask(self, b: int) -> None:
        """Request a micro-batch."""
        try:
            self.child.connection.send(b)
        except ConnectionError as error:
            raise self.lost() from error

    def lost(self) -> ReaderLostError:
        """Return the error for a reader whose pipe is closed."""
        process = self.child.process
        process.join()
        code = process.exitcode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
        hint = ", possibly because memory ran out" if code == -signal.SIGKILL else ""
        return ReaderLostError(f"process {process.pid}, which reads data ahead, {how}{hint}. {_GOES_ON}")

    def _listen(self) -> None:
        try:
            while True:
                self.answers.put(pickle.loads(self.child.connection.recv_bytes()))
        except (EOFError, OSError):
            self.answers.put(None)


def _read(batches: TrainingBatches, connection: Connection) -> None:
    """Main function of a reader."""
    while True:
        b = connection.recv()
        # plain pickle, because that of multiprocessing would move tensors to shared memory
        connection.send_bytes(pickle.dumps(_batch(batches, b), protocol=pickle.HIGHEST_PROTOCOL))


def _batch(batches: TrainingBatches, b: int) -> RawBatch | Exception:
    try:
        return batches[b]
    except Exception as error:
        error.add_note(traceback.format_exc())
        return error
