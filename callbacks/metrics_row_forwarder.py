"""Forward the rows of metrics.jsonl to another destination."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_only

from callbacks.throughput import Throughput
from gpt_lightning.jsonl_reader import iterate_rows


class MetricsForwarder(L.Callback, ABC):
    """Call `take` with all rows that a run has written, from the first row on. This callback must come after StepLog in
    the list of callbacks.

    Each start of the run first passes all existing rows, so that a resumed run or a new destination is complete.
    """

    def __init__(self) -> None:
        self._offset = 0  # number of bytes of metrics.jsonl already read

    @abstractmethod
    def take(self, trainer: L.Trainer, rows: Iterable[dict[str, Any]]) -> None:
        """Process the new rows, in order."""

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self._read(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._read(trainer)

    @rank_zero_only
    def _read(self, trainer: L.Trainer) -> None:
        path = Path(trainer.default_root_dir) / "metrics.jsonl"
        size = path.stat().st_size if path.exists() else 0
        if size > self._offset:
            begin, self._offset = self._offset, size
            with Throughput.paused(trainer):
                self.take(trainer, iterate_rows(path, begin=begin))
