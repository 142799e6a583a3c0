"""TensorBoard's files, which a full disk must not let a run die of."""

import threading
from collections.abc import Callable
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.tensorboard.summary import hparams

from callbacks.terminal import Terminal


class TensorBoard(TensorBoardLogger):
    """Lightning's logger; once its files cannot be written any more, this start of the run goes on without them.

    The thread that writes them ends at its first failure, so there is no second try; metrics.jsonl has everything.
    """

    def __init__(self, *args: Any, terminal: Terminal, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._terminal = terminal
        self._gave_up = False
        self._hook = threading.excepthook
        threading.excepthook = self._on_thread_end

    @rank_zero_only
    def write(self, method: str, *args: Any) -> None:
        """Call a method of torch's SummaryWriter, if its files can be written."""
        self._attempt(lambda: getattr(self.experiment, method)(*args))

    @rank_zero_only
    def add_run(self, settings: dict[str, Any], curves: list[str]) -> None:
        """Give the run a row in the HPARAMS tab, whose columns follow its curves (Lightning's would add points)."""

        def add() -> None:
            for summary in hparams(settings, dict.fromkeys(curves, 0.0)):
                self.experiment._get_file_writer().add_summary(summary)

        self._attempt(add)

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Each metric as a scalar. (Lightning's own hides why one could not be written.)"""

        def add() -> None:
            for key, value in metrics.items():
                self.experiment.add_scalar(key, value, step)

        self._attempt(add)

    @rank_zero_only
    def save(self) -> None:
        self._attempt(lambda: TensorBoardLogger.save(self))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        threading.excepthook = self._hook
        self._attempt(lambda: TensorBoardLogger.finalize(self, status))

    def _on_thread_end(self, arguments: threading.ExceptHookArgs) -> None:
        """What ended TensorBoard's thread is raised where its next event is added, and said there."""
        if type(arguments.thread).__name__ != "_AsyncWriterThread":
            self._hook(arguments)

    def _attempt(self, action: Callable[[], object]) -> None:
        if self._gave_up:
            return
        try:
            action()
        except OSError as error:
            self._gave_up = True
            self._terminal.note(
                f"TensorBoard's files cannot be written ({error.strerror or error}): this start goes on without them",
                style="bold red",
            )
