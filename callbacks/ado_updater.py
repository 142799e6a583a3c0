"""Update mix weights from the training losses during a run."""

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from callbacks.step_callback import StepCallback
from data_modules.order.ado import CurveFit, LossCurve, fit_curve, update_mix_weights
from gpt_lightning.loggers.jsonl_file import JsonlFile
from gpt_lightning.loggers.terminal_and_log_file import ConsoleLogger


class AdoUpdater(StepCallback):
    """Record the training loss of each source, and update the mix weights from these losses, as the curriculum's `ado`
    says (data_modules/order/ado.py).

    The losses are those of training itself; no sequence is read again. At the end of an update's step, the data module
    gets the order with the new weights, and mix_weights.jsonl gets a row from which another run can repeat the update:
    `step`, `weights`, and for each source the mean `loss` since the previous update and the power law, `fit`. If the
    updates are repeated from such a record, the losses have no effect.

    The losses so far are saved in the checkpoint. So are all updates, as part of what determines the order of the
    tokens.

    Args:
        path: Path of mix_weights.jsonl.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(every=1)
        self.lines = JsonlFile(path)
        self._seen = torch.zeros(
            2, 0, dtype=torch.float64
        )  # (nats and loss-bearing tokens, sources) of the current point, on this rank
        self._points: list[tuple[int, int, list[list[float]]]] = []  # (first step, steps, `_seen` summed over ranks)
        self._first = 0  # first step of the current point
        self._saved: dict[str, Any] = {}

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        self._saved = checkpoint.get("losses_by_source", {})

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Save the sums over all ranks. Every rank takes part in saving."""
        checkpoint["losses_by_source"] = {
            "sources": list(trainer.datamodule.order.sources),  # type: ignore[attr-defined]
            "steps": torch.tensor([point[:2] for point in self._points], dtype=torch.int64).reshape(-1, 2),
            "sums": torch.tensor([sums for *_, sums in self._points], dtype=torch.float64),
            "first": self._first,
            "seen": self._total(trainer),
        }

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Assign the sums from before a resume to the first rank. Sources that are new since then have no loss yet."""
        names = trainer.datamodule.order.sources  # type: ignore[attr-defined]
        self._first = self._saved.get("first", trainer.global_step)
        seen = torch.zeros(2, len(names), dtype=torch.float64)
        if self._saved:
            columns = [names.index(source) for source in self._saved["sources"]]
            sums = torch.zeros(len(self._saved["sums"]), *seen.shape, dtype=torch.float64)
            seen[:, columns] = self._saved["seen"]
            if len(sums):
                sums[:, :, columns] = self._saved["sums"]
            steps = self._saved["steps"].tolist()
            self._points = [(first, n, row) for (first, n), row in zip(steps, sums.tolist(), strict=True)]
        self._seen = (seen if trainer.is_global_zero else torch.zeros_like(seen)).to(pl_module.device)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        sources = torch.arange(self._seen.shape[1], device=batch.sources.device)
        of_source = batch.sources[:, None] == sources  # (batch, sources)
        bearing = (
            torch.full_like(batch.sources, batch.targets.shape[1]) if batch.mask is None else batch.mask.sum(dim=1)
        )
        values = torch.stack([pl_module.sequence_nats.double(), bearing.double()])  # (2, batch)
        self._seen += (values[:, :, None] * of_source).sum(dim=1)  # deterministic order of summation, also on a GPU
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_step(self, trainer: L.Trainer, module: Any) -> None:
        step, order = trainer.global_step, trainer.datamodule.order  # type: ignore[attr-defined]
        ado = order.curriculum.curriculum.ado
        if not ado.ends_point(step, begun=self._first):
            return
        module.settle()
        self._points.append((self._first, step - self._first, self._total(trainer).tolist()))
        self._first = step
        self._seen.zero_()
        if step < order.steps and step == ado.next_update(step - 1, steps=order.steps):
            self._update(trainer, step)

    def _update(self, trainer: L.Trainer, step: int) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        order, rules = data.order, data.order.curriculum.curriculum
        tokens_per_step = order.global_batch * data.batches.max_seq_len
        leave_out = rules.ado.warmup / 2 * order.steps * tokens_per_step
        fits = {
            source: fit_curve(self._curve(order.sources.index(source), tokens_per_step), leave_out=leave_out)
            for source in rules.sources
        }
        recorded = dict(order.updates).get(step)
        weights = recorded or update_mix_weights(
            fits,
            tokens=float(step * tokens_per_step),
            prior=order.curriculum.weights(order.first_step),
            past=order.stretches(),
            floors=rules.floors,
        )
        weights = trainer.strategy.broadcast(weights)  # different machines could differ in the last bit
        if recorded is None:
            data.go_on_with(order.updated(step, weights))
        if trainer.is_global_zero:
            row = self._row(step, weights, fits, order.sources, since=step - rules.ado.every)
            ConsoleLogger.of(trainer).complain("mix_weights.jsonl", self.lines.append_row(row))

    def _row(
        self,
        step: int,
        weights: dict[str, float],
        fits: dict[str, CurveFit | None],
        sources: tuple[str, ...],
        *,
        since: int,
    ) -> dict[str, Any]:
        recent = np.array([sums for first, n, sums in self._points if first + n > since]).sum(axis=0)  # (2, sources)
        nats, bearing = (dict(zip(sources, row.tolist(), strict=True)) for row in recent)
        return {
            "step": step,
            "weights": weights,
            "loss": {source: nats[source] / bearing[source] if bearing[source] else None for source in weights},
            "fit": {source: None if law is None else law._asdict() for source, law in fits.items()},
        }

    def _curve(self, k: int, tokens_per_step: int) -> LossCurve:
        middles = [(first + n / 2) * tokens_per_step for first, n, _ in self._points]
        sums = np.array([[nats[k], bearing[k]] for *_, (nats, bearing) in self._points])
        return LossCurve(np.array(middles), sums[:, 0], sums[:, 1])

    def _total(self, trainer: L.Trainer) -> Tensor:
        total: Tensor = trainer.strategy.reduce(self._seen.clone(), reduce_op="sum")
        return total.cpu()
