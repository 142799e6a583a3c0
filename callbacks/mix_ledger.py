"""What was really trained on, beside what was planned."""

from typing import Any

import lightning as L
import torch
from torch import Tensor

from callbacks.step_callback import StepCallback, log_metrics


class MixLedger(StepCallback):
    """Counts the sequences of each source in the batches that the model was given, on all ranks.

    `mix/planned/<source>` is the curriculum's share at the step just done; `mix/realised/<source>` the share among the
    sequences since the last time it was logged; `mix/epochs/<source>` the passes over the source so far; `tokens` all
    tokens so far.
    """

    def __init__(self, *, every: int) -> None:
        super().__init__(every=every)
        self._drawn = torch.zeros(0, dtype=torch.int64)  # (sources,), by this rank, on its device
        self._logged = torch.zeros(0, dtype=torch.int64)  # (sources,), by all ranks, when it was last logged

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """What was drawn before a resume follows from the order; it is booked on the first rank."""
        order: Any = trainer.datamodule.order  # type: ignore[attr-defined]
        done = trainer.global_step
        before = torch.tensor(list(order.counts(done).values()), device=pl_module.device)
        self._drawn = before if trainer.is_global_zero else torch.zeros_like(before)
        self._logged = torch.tensor(list(order.counts(done - done % self.every).values()))

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        indices = torch.arange(len(self._drawn), device=self._drawn.device)
        self._drawn += (batch.sources[:, None] == indices).sum(dim=0)  # bincount would wait for a GPU
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_step(self, trainer: L.Trainer, module: Any) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        total: Tensor = trainer.strategy.reduce(self._drawn.clone(), reduce_op="sum").cpu()
        recent = total - self._logged
        self._logged = total
        planned = data.order.curriculum.weights(trainer.global_step - 1)
        metrics = {"tokens": int(total.sum()) * data.max_seq_len}
        for k, source in enumerate(data.order.sources):
            metrics[f"mix/planned/{source}"] = planned[source]
            metrics[f"mix/realised/{source}"] = recent[k].item() / recent.sum().item()
            metrics[f"mix/epochs/{source}"] = total[k].item() / data.order.sequences[source]
        log_metrics(trainer, metrics)
