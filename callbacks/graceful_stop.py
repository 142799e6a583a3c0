"""Stop a run before its last step without losing progress: at a signal, or when the wall-clock limit is reached."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import psutil
import torch

from gpt_lightning.loggers.terminal_and_log_file import ConsoleLogger

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
_TIME_IS_UP = int(signal.NSIG)  # a number above those of signals
_ONE_SIGNAL = 1.0  # seconds; a terminal, Slurm and torchrun may pass on the same signal several times within this time


class RunStopped(Exception):
    """The run was stopped before its last step and saved; the same command resumes it."""

    def __init__(self, reason: int, step: int, *, saved: bool) -> None:
        by = "max_hours" if reason == _TIME_IS_UP else signal.Signals(reason).name
        place = "from there" if saved else "from the newest checkpoint, because this step could not be saved"
        super().__init__(f"stopped by {by} after step {step}: run the same command again to resume {place}.")
        self.exit_code = _exit_code(reason)


def _exit_code(reason: int) -> int:
    return {_TIME_IS_UP: os.EX_TEMPFAIL, signal.SIGINT: 130}.get(reason, 143)


def _began() -> float:
    launcher = psutil.Process().parent() if "TORCHELASTIC_RUN_ID" in os.environ else None
    return (launcher or psutil.Process()).create_time()


class GracefulStop(L.Callback):
    """Decide, equally on all ranks, whether the current step is the last of this start of the run.

    A signal only sets a flag. The ranks agree on the flag once per step, so that all stop at the same step. A second
    signal, one second or more after the first, ends the process immediately.

    Args:
        max_hours: Wall-clock limit in hours since the process started, or since torchrun's launcher, which restarts
            failed ranks. The run stops if the rest of this step and one more step, as long as the longest so far, would
            exceed the limit. Validation, samples and saving count once they have occurred. None: no limit.

    Raises:
        ValueError: `max_hours` is not above 0.
    """

    def __init__(self, *, max_hours: float | None) -> None:
        if max_hours is not None and not (isinstance(max_hours, (int, float)) and max_hours > 0):
            raise ValueError(f"max_hours is {max_hours!r}: it must be a number above 0, or null.")
        self._max_seconds = None if max_hours is None else max_hours * 3600
        self.began = _began()
        """Start of the period `max_hours`, in seconds since the epoch."""
        self._signal = 0
        self._signal_at = 0.0
        self._step_began = 0.0
        self._longest_step = 0.0
        self.reason = 0
        """Why the current step is the last; 0 if it is not the last."""

    @property
    def heard(self) -> int:
        """The signal that this process received; 0: none."""
        return self._signal

    @classmethod
    def of(cls, trainer: Any) -> "GracefulStop":
        """Return the callback of a run."""
        return next(callback for callback in trainer.callbacks if isinstance(callback, cls))

    @contextmanager
    def listening(self, trainer: Any) -> Iterator[None]:
        """Replace Lightning's signal handling, whose handler communicates with other ranks (Lightning issue 20806)."""
        trainer._signal_connector.register_signal_handlers = lambda: None
        heard, told = os.pipe()
        os.set_blocking(told, False)
        heeded = [
            n for n in SIGNALS if n != signal.SIGHUP or signal.getsignal(n) is not signal.SIG_IGN
        ]  # SIGHUP is ignored under nohup
        before = {number: signal.signal(number, lambda *_: None) for number in heeded}
        fd_before = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
        threading.Thread(target=self._listen, args=(heard, trainer), daemon=True, name="signals").start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(fd_before)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(told)  # ends the thread

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._step_began = time.monotonic()

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: Any, optimizer: Any) -> None:
        now = time.monotonic()
        self._longest_step = max(self._longest_step, now - self._step_began)
        self._step_began = now
        self._agree(trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Check again, because validation may take long."""
        self._agree(trainer, pl_module)

    def _agree(self, trainer: L.Trainer, pl_module: Any) -> None:
        reason = self._signal or (_TIME_IS_UP if self._is_time_up() else 0)
        if trainer.world_size > 1:
            agreed = trainer.strategy.reduce(torch.tensor(reason, device=pl_module.device), reduce_op="max")
            reason = int(agreed)
        self.reason = reason

    def _is_time_up(self) -> bool:
        if self._max_seconds is None:
            return False
        return time.time() - self.began + 2 * self._longest_step >= self._max_seconds

    def _listen(self, heard: int, trainer: Any) -> None:
        """Read signal numbers in a thread, so that they are handled even if the main thread is in a long operation."""
        with os.fdopen(heard, "rb", buffering=0) as numbers:
            while number := numbers.read(1):
                if number[0] not in SIGNALS:
                    continue
                if not self._signal:
                    self._signal, self._signal_at = number[0], time.monotonic()
                    name = signal.Signals(number[0]).name
                    ConsoleLogger.of(trainer).note(
                        f"{name}: this step will be finished and saved; a second signal ends the run immediately",
                        style="bold",
                    )
                elif time.monotonic() - self._signal_at > _ONE_SIGNAL:
                    os._exit(_exit_code(number[0]))
