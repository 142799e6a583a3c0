"""Compare the data that was trained on with the plan."""

from typing import Any

import lightning as L
import torch
from torch import Tensor

from callbacks.step_callback import StepCallback, log_metrics

_MOST_DRIFT = 2  # sequences; see data_modules/order/sample_order.py


class MixLedger(StepCallback):
    """Count the sequences and loss-bearing tokens of each source in the batches given to the model, on all ranks.

    The ledger logs for each source:

    * `mix/planned/…`: planned share of the sequences since the last logged step, before rounding to whole sequences
    * `mix/realised/…`: share of these sequences that the model received
    * `mix/planned_loss_bearing/…`, `mix/realised_loss_bearing/…`: the same for loss-bearing tokens; the planned share is
      computed from the mean number of loss-bearing tokens in the source's training sequences
    * `mix/epochs/…`: epochs so far
    * `mix/drift/…`: number of sequences drawn so far minus the planned number, before rounding
    * `mix/tokens/…`: tokens so far, including padding

    The metric `tokens` is the sum of `mix/tokens/…` over the sources.

    The totals are saved in the checkpoint. If the data differs from the sample order, the run stops with a
    RuntimeError.
    """

    def __init__(self, *, every: int) -> None:
        super().__init__(every=every)
        self._seen = torch.zeros(2, 0, dtype=torch.int64)  # (sequences and loss-bearing tokens, sources), this rank
        self._logged = torch.zeros(2, 0, dtype=torch.int64)  # the same over all ranks, at the last logged step
        self._saved: dict[str, dict[str, list[int]]] = {}
        self._per_sequence: dict[str, float] = {}

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        if "ledger" not in checkpoint:
            raise RuntimeError(
                "the checkpoint was saved without callbacks.mix_ledger: the run must continue without it. Add "
                "~callbacks.mix_ledger."
            )
        self._saved = checkpoint["ledger"]

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Save the totals over all ranks. Every rank takes part in saving."""
        names = trainer.datamodule.order.sources  # type: ignore[attr-defined]
        total = self._total(trainer)
        self._refuse_another_order(trainer, total[0].tolist())
        checkpoint["ledger"] = {
            key: dict(zip(names, totals.T.tolist(), strict=True))
            for key, totals in (("seen", total), ("logged", self._logged))
        }

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Assign the totals from before a resume to the first rank."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self._per_sequence = data.loss_bearing_per_sequence()
        seen, self._logged = (
            torch.tensor([self._saved.get(key, {}).get(source, [0, 0]) for source in data.order.sources]).T.contiguous()
            for key in ("seen", "logged")
        )
        self._seen = (seen if trainer.is_global_zero else torch.zeros_like(seen)).to(pl_module.device)
        self._refuse_another_order(trainer, seen[0].tolist())

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        bearing = (
            torch.full_like(batch.sources, batch.targets.shape[1]) if batch.mask is None else batch.mask.sum(dim=1)
        )
        self._seen.index_add_(1, batch.sources, torch.stack([torch.ones_like(bearing), bearing]))
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_step(self, trainer: L.Trainer, module: Any) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        order, step = data.order, trainer.global_step
        total = self._total(trainer)
        sequences, bearing = (total - self._logged).tolist()
        due = order.due(step)
        recent = order.due_between(int(self._logged[0].sum()) // order.global_batch, step)
        self._logged = total
        planned = {source: n / sum(sequences) for source, n in recent.items()}
        planned_bearing = {source: share * self._per_sequence[source] for source, share in planned.items()}
        metrics: dict[str, float] = {"tokens": int(total[0].sum()) * data.batches.max_seq_len}
        for k, (source, drawn) in enumerate(zip(order.sources, total[0].tolist(), strict=True)):
            metrics[f"mix/planned/{source}"] = planned[source]
            metrics[f"mix/realised/{source}"] = sequences[k] / sum(sequences)
            metrics[f"mix/planned_loss_bearing/{source}"] = planned_bearing[source] / sum(planned_bearing.values())
            metrics[f"mix/realised_loss_bearing/{source}"] = bearing[k] / max(1, sum(bearing))
            metrics[f"mix/epochs/{source}"] = drawn / order.sequences[source]
            metrics[f"mix/drift/{source}"] = drawn - due[source]
            metrics[f"mix/tokens/{source}"] = drawn * data.batches.max_seq_len
        log_metrics(trainer, metrics)
        self._refuse_another_order(trainer, total[0].tolist())

    def _total(self, trainer: L.Trainer) -> Tensor:
        total: Tensor = trainer.strategy.reduce(self._seen.clone(), reduce_op="sum")
        return total.cpu()

    @staticmethod
    def _refuse_another_order(trainer: L.Trainer, sequences: list[int]) -> None:
        order: Any = trainer.datamodule.order  # type: ignore[attr-defined]
        planned, due = order.counts(trainer.global_step), order.due(trainer.global_step)
        for source, drawn in zip(order.sources, sequences, strict=True):
            if drawn != planned[source] or abs(drawn - due[source]) >= _MOST_DRIFT:
                raise RuntimeError(
                    f"at step {trainer.global_step}, {drawn:,} sequences of {source} were trained on: the sample order "
                    f"has {planned[source]:,}, with {due[source]:,.2f} due. This is a bug in gpt-lightning."
                )
