"""Stopping before the last step and losing nothing: at a signal, or as the hours that a run may take are over."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import lightning as L
import psutil
import torch

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
_TIME_IS_UP = 1  # beside the numbers of signals: SIGHUP's, which is not one of them
_ONE_SIGNAL = 0.1  # seconds within which a launcher and a terminal may both pass on one and the same


class Stopped(Exception):
    """The run ended in good order before its last step; the same command goes on."""

    def __init__(self, reason: int, step: int, *, saved: bool) -> None:
        by = "max_hours" if reason == _TIME_IS_UP else signal.Signals(reason).name
        place = "there" if saved else "from the newest checkpoint, as this step could not be saved"
        super().__init__(f"stopped by {by} after step {step}: the same command goes on {place}.")
        self.exit_code = {_TIME_IS_UP: os.EX_TEMPFAIL, signal.SIGINT: 130}.get(reason, 143)


class Stopping(L.Callback):
    """Knows, on all ranks alike, whether the step that is being made is to be the last of this start.

    A signal only sets a flag. The ranks agree on it once a step, so that all of them stop at the same one; a second signal ends
    the process at once.

    Args:
        max_hours: since the process began; it stops while what is left to do of this step, and another one as long as the longest
            so far (validation, samples and saving included), would still fit.

    Raises:
        ValueError: `max_hours` is not above 0.
    """

    def __init__(self, *, max_hours: float | None) -> None:
        if max_hours is not None and not (isinstance(max_hours, (int, float)) and max_hours > 0):
            raise ValueError(f"max_hours is {max_hours!r}: it must be a number above 0, or null.")
        self._max_seconds = None if max_hours is None else max_hours * 3600
        self._signal = 0
        self._signal_at = 0.0
        self._step_began = 0.0
        self._longest_step = 0.0
        self.reason = 0
        """Why the step is the last; 0: it is not."""

    @classmethod
    def of(cls, trainer: Any) -> "Stopping":
        """The run's."""
        return next(callback for callback in trainer.callbacks if isinstance(callback, cls))

    @contextmanager
    def listening(self, trainer: Any) -> Iterator[None]:
        """Take the signals over from Lightning, whose own handler talks to the other ranks from inside (its issue 20806)."""
        trainer._signal_connector.register_signal_handlers = lambda: None
        before = {number: signal.signal(number, self._received) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._step_began = time.monotonic()

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: Any, optimizer: Any) -> None:
        now = time.monotonic()
        self._longest_step = max(self._longest_step, now - self._step_began)
        self._step_began = now
        reason = self._signal or (_TIME_IS_UP if self._is_time_up() else 0)
        agreed = trainer.strategy.reduce(torch.tensor(reason, device=pl_module.device), reduce_op="max")
        self.reason = int(agreed)

    def _is_time_up(self) -> bool:
        if self._max_seconds is None:
            return False
        return time.time() - psutil.Process().create_time() + 2 * self._longest_step >= self._max_seconds

    def _received(self, number: int, frame: FrameType | None) -> None:
        if not self._signal:
            self._signal, self._signal_at = number, time.monotonic()
        elif time.monotonic() - self._signal_at > _ONE_SIGNAL:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
