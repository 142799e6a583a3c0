"""Send the rows of metrics.jsonl to an experiment tracker: Weights & Biases or MLflow."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from callbacks.metrics_row_forwarder import MetricsForwarder
from gpt_lightning.durable_files import write_durably
from gpt_lightning.loggers.terminal_and_log_file import ConsoleLogger


class ExperimentTracker(MetricsForwarder):
    """Send each row once, however often the run is killed and resumed. The service reports the last step that it has a
    row for.

    Errors of the service do not stop the run: the run continues without the service, and sends the missing rows when
    the run is next started.

    Args:
        logger: Lightning's logger, which creates or finds the service's run when the logger is opened.
        kind: Name of the service, as in `logger=<kind>`.
        record: File in the run directory that identifies the service's run.
        identity: Content of that file, except the run's id.
    """

    def __init__(self, logger: Any, *, kind: str, record: Path, identity: dict[str, Any]) -> None:
        super().__init__()
        self._logger = logger
        self._kind = kind
        self._record = record
        self._identity = identity
        self._sent = 0  # last step whose row was sent
        self._is_open = False
        self._gave_up = False

    def open(self, hyperparameters: dict[str, bool | float | str]) -> None:
        """Create the run on the service, with its hyperparameters, or continue the existing run.

        Raises:
            ValueError: The service refuses.
        """
        try:
            experiment, number = self._logger.experiment, self._logger.version
            if isinstance(self._logger, WandbLogger):
                self._sent = experiment.starting_step - 1  # always -1 for offline runs: their folder has all rows
            else:
                self._sent = max((point.step for point in experiment.get_metric_history(number, "step")), default=0)
            if self._sent <= 0:
                self._logger.log_hyperparams(hyperparameters)
        except Exception as error:  # each service raises different exceptions
            raise ValueError(
                f"logger={self._kind} cannot start: {_sentence(error)}. Correct this, or set another logger=…."
            ) from error
        self._is_open = True
        write_durably(self._record, {**self._identity, "id": number})

    def take(self, trainer: L.Trainer, rows: Iterable[dict[str, Any]]) -> None:
        if self._gave_up:
            return
        try:
            for row in rows:
                if row["step"] > self._sent:
                    if isinstance(
                        self._logger, WandbLogger
                    ):  # Lightning's method would use another step counter of W&B
                        axis = {"trainer/global_step": row["step"]}
                        self._logger.experiment.log(row | axis, step=row["step"])
                    else:
                        self._logger.log_metrics(row, step=row["step"])
        except Exception as error:  # as in `open`
            self._give_up(trainer, error)

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        super().on_train_end(trainer, pl_module)
        self._close(trainer, "success")

    def on_exception(self, trainer: L.Trainer, pl_module: Any, exception: BaseException) -> None:
        self._close(trainer, "failed")

    @rank_zero_only
    def _close(self, trainer: L.Trainer, status: str) -> None:
        if not self._is_open:
            return
        try:
            self._logger.finalize(status)
            if isinstance(self._logger, WandbLogger):  # otherwise it would only end with the process
                self._logger.experiment.finish(exit_code=int(status != "success"))
        except Exception as error:  # as in `open`
            self._give_up(trainer, error)

    def _give_up(self, trainer: L.Trainer, error: Exception) -> None:
        if not self._gave_up:
            ConsoleLogger.of(trainer).note(
                f"logger={self._kind} failed ({_sentence(error)}): this run continues without it. The missing rows are "
                "sent when the run is next started",
                style="bold red",
            )
        self._gave_up = True


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split())[:300].rstrip(".")
