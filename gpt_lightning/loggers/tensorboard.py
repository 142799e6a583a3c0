"""TensorBoard logger that does not stop a run when the disk is full."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from gpt_lightning.console import escape_control_characters
from gpt_lightning.loggers.jsonl_metrics import JsonlMetrics, metrics_logger_only
from gpt_lightning.loggers.terminal_and_log_file import ConsoleLogger

_ROW, _TEMPORARY = "events.out.tfevents.0.hparams", ".hparams.tmp"


class TensorBoard(TensorBoardLogger):
    """Lightning's logger. After the first failed write it stops logging until the run is started again.

    TensorBoard's writer thread ends at its first failure, so writing is not retried. metrics.jsonl has all metrics.
    """

    def __init__(self, *args: Any, terminal: ConsoleLogger, metrics_file: JsonlMetrics, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._terminal = terminal
        self._metrics_file = metrics_file  # knows the current step
        self._results: SummaryWriter | None = None
        self._curves: Mapping[str, str] = {}
        self._gave_up = False
        self._hook = threading.excepthook
        threading.excepthook = self._on_thread_end

    @rank_zero_only
    def write(self, method: str, *args: Any) -> None:
        """Call a method of torch's SummaryWriter, unless writing has failed."""
        self._attempt(lambda: getattr(self.experiment, method)(*args))

    @rank_zero_only
    def add_run(self, settings: Mapping[str, bool | float | str], *, curves: Mapping[str, str]) -> None:
        """Add the run to the HPARAMS tab, in a separate folder result/.

        TensorBoard then finds the columns itself: all settings of all runs (settings that differ come first), and the
        metrics stored in the same folder as such a row. (If each run wrote its columns with its row, the columns of one
        run would apply to all runs.) Each start of the run replaces the row, because TensorBoard shows only the first.
        TensorBoard reads the files of a folder in alphabetical order and never returns to an earlier one, so the file
        has a name that sorts first.

        Args:
            settings: Settings of the run.
            curves: Name of a metric -> its name in the row. TensorBoard shows the first five names in alphabetical
                order.
        """
        texts = {
            key: escape_control_characters(value) if isinstance(value, str) else value
            for key, value in settings.items()
        }
        _, session, _ = hparams(texts, {})
        folder = Path(self.log_dir) / "result"

        def add() -> None:
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / _TEMPORARY).open("wb") as file:
                records = RecordWriter(file)
                records.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
                records.write(Event(wall_time=time.time(), summary=session).SerializeToString())
            (folder / _TEMPORARY).replace(folder / _ROW)
            self._results = SummaryWriter(str(folder), purge_step=self._kwargs.get("purge_step"))

        self._curves = curves
        self._attempt(add)

    @rank_zero_only
    def add_layout(self, sources: Sequence[str]) -> None:
        """Define the charts of the CUSTOM SCALARS tab, which groups related metrics."""
        mix = {f"{source}, planned and realised": f"mix/(planned|realised)/{source}$" for source in sources}
        mix |= {
            "planned share of the loss-bearing tokens": "mix/planned_loss_bearing/",
            "realised share of the loss-bearing tokens": "mix/realised_loss_bearing/",
            "epochs of each source": "mix/epochs/",
            "sequences ahead of the exact share": "mix/drift/",
        }
        layout = {
            "validation by source": {
                "perplexity": "val/perplexity/",
                "loss, nats per loss-bearing token": "val/loss/",
                "bits per byte": "val/bits_per_byte/",
            },
            "training": {
                "loss, and its validation mean": "(train/loss|val/loss/mean)$",
                "gradient norm before clipping": "train/grad_norm$",
                "learning rate": "train/lr$",
            },
            "mix": mix,
            "speed": {
                "tokens per second, training only and overall": "speed/tokens_per_s",
                "MFU": "speed/mfu$",
                "share of training time spent waiting for data": "speed/data_wait_share$",
                "memory, GB": "memory/",
            },
        }
        charts = {
            tab: {title: ["Multiline", [f"^{tags}"]] for title, tags in of_tab.items()}
            for tab, of_tab in layout.items()
        }
        self.write("add_custom_scalars", charts)

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Write each metric as a scalar. (Lightning's own method hides why a write failed.)"""

        def add() -> None:
            for key, value in metrics_logger_only(metrics).items():
                self.experiment.add_scalar(key, value, self._metrics_file.step)
                if self._results and key in self._curves:
                    self._results.add_scalar(self._curves[key], value, self._metrics_file.step)

        self._attempt(add)

    @rank_zero_only
    def save(self) -> None:
        self._attempt(lambda: TensorBoardLogger.save(self))
        if self._results:
            self._attempt(self._results.flush)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        threading.excepthook = self._hook
        self._attempt(lambda: TensorBoardLogger.finalize(self, status))
        if self._results:
            self._attempt(self._results.close)

    def _on_thread_end(self, arguments: threading.ExceptHookArgs) -> None:
        """Ignore the exception that ended TensorBoard's thread; it is raised again, and reported, at the next write."""
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
                f"TensorBoard files cannot be written ({error.strerror or error}): TensorBoard logging stops until "
                "the next start",
                style="bold red",
            )
