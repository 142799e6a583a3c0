"""Stopping before the last step and losing nothing: at a signal, or as the hours that a run may take are over."""

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

from gpt_lightning.loggers.console_logger import ConsoleLogger

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
_TIME_IS_UP = int(signal.NSIG)  # above the numbers of signals
_ONE_SIGNAL = 1.0  # seconds within which a terminal, Slurm and torchrun may all pass on one and the same


class RunStopped(Exception):
    """The run ended in good order before its last step; the same command goes on."""

    def __init__(self, reason: int, step: int, *, saved: bool) -> None:
        by = "max_hours" if reason == _TIME_IS_UP else signal.Signals(reason).name
        place = "there" if saved else "from the newest checkpoint, as this step could not be saved"
        super().__init__(f"stopped by {by} after step {step}: the same command goes on {place}.")
        self.exit_code = _exit_code(reason)


def _exit_code(reason: int) -> int:
    return {_TIME_IS_UP: os.EX_TEMPFAIL, signal.SIGINT: 130}.get(reason, 143)


def _began() -> float:
    launcher = psutil.Process().parent() if "TORCHELASTIC_RUN_ID" in os.environ else None
    return (launcher or psutil.Process()).create_time()


class GracefulStop(L.Callback):
    """Knows, on all ranks alike, whether the step that is being made is to be the last of this start.

    A signal only sets a flag. The ranks agree on it once a step, so that all of them stop at the same one; a second signal, a
    second or more after the first, ends the process at once.

    Args:
        max_hours: since the process began, or torchrun's launcher, which starts ranks again that have failed; it stops while what
            is left to do of this step, and another one as long as the longest so far (validation, samples and saving included,
            once there were any), would still fit.

    Raises:
        ValueError: `max_hours` is not above 0.
    """

    def __init__(self, *, max_hours: float | None) -> None:
        if max_hours is not None and not (isinstance(max_hours, (int, float)) and max_hours > 0):
            raise ValueError(f"max_hours is {max_hours!r}: it must be a number above 0, or null.")
        self._max_seconds = None if max_hours is None else max_hours * 3600
        self.began = _began()
        """When `max_hours` began, in seconds since the epoch."""
        self._signal = 0
        self._signal_at = 0.0
        self._step_began = 0.0
        self._longest_step = 0.0
        self.reason = 0
        """Why the step is the last; 0: it is not."""

    @property
    def heard(self) -> int:
        """The signal that this process was told to stop by; 0: none."""
        return self._signal

    @classmethod
    def of(cls, trainer: Any) -> "GracefulStop":
        """The run's."""
        return next(callback for callback in trainer.callbacks if isinstance(callback, cls))

    @contextmanager
    def listening(self, trainer: Any) -> Iterator[None]:
        """Take the signals over from Lightning, whose own handler talks to the other ranks from inside (its issue 20806)."""
        trainer._signal_connector.register_signal_handlers = lambda: None
        heard, told = os.pipe()
        os.set_blocking(told, False)
        heeded = [
            n for n in SIGNALS if n != signal.SIGHUP or signal.getsignal(n) is not signal.SIG_IGN
        ]  # as nohup wants it
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
        """It may have taken long; what came meanwhile need not wait for another step."""
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
        """Read the numbers of signals as they come, also while the main thread is in a long operation and would not look."""
        with os.fdopen(heard, "rb", buffering=0) as numbers:
            while number := numbers.read(1):
                if number[0] not in SIGNALS:
                    continue
                if not self._signal:
                    self._signal, self._signal_at = number[0], time.monotonic()
                    name = signal.Signals(number[0]).name
                    ConsoleLogger.of(trainer).note(
                        f"{name}: this step is finished and saved; once more ends at once", style="bold"
                    )
                elif time.monotonic() - self._signal_at > _ONE_SIGNAL:
                    os._exit(_exit_code(number[0]))
