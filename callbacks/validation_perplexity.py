"""Validation per source."""

import math
from collections.abc import Iterable
from typing import Any

import lightning as L
import torch
from torch import Tensor

from callbacks.step_callback import log_metrics


class ValidationPerplexity(L.Callback):
    """Log loss, perplexity and bits per byte of each source's validation split, and their means.

    `val/loss/<source>` is in nats per loss-bearing token. `val/perplexity/<source>` is the exponential of this loss.
    `val/bits_per_byte/<source>` is the loss in bits per UTF-8 byte of those tokens, which is comparable between
    tokenizers. (End-of-text tokens contribute bits but no bytes.) `…/mean` weights every source equally: the mean
    of the losses, the exponential of this mean, and the mean of the bits per byte.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}  # source -> (nats, loss-bearing tokens, bytes)
        self._bytes_of_id: Tensor | None = None
        self.step, self.mean_loss = -1, math.inf
        """Step and mean loss of the last validation; equal on all ranks."""

    @staticmethod
    def names(sources: Iterable[str]) -> list[str]:
        """Return the metrics of a validation of these sources."""
        return [f"val/{kind}/{name}" for kind in ("loss", "perplexity", "bits_per_byte") for name in ["mean", *sources]]

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step >= trainer.max_steps:
            trainer.should_stop = True  # makes Lightning validate at the last step, whatever the interval

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self._sums = {name: torch.zeros(3, dtype=torch.float64) for name in data.sources}
        if self._bytes_of_id is None:
            self._bytes_of_id = torch.tensor(data.tokenizer.bytes_per_id())

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        assert self._bytes_of_id is not None
        spelled = self._bytes_of_id[batch.targets[batch.mask].cpu()].sum()
        sums = torch.stack([outputs["nats"].double().cpu(), outputs["tokens"].double().cpu(), spelled.double()])
        self._sums[list(self._sums)[dataloader_idx]] += sums

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        losses, bits = {}, {}
        for source, sums in self._sums.items():
            total = trainer.strategy.reduce(sums.to(pl_module.device), reduce_op="sum")
            nats, tokens, n_bytes = total.tolist()
            losses[source] = nats / tokens
            bits[source] = nats / math.log(2) / n_bytes
        losses["mean"] = sum(losses.values()) / len(losses)
        self.step, self.mean_loss = trainer.global_step, losses["mean"]
        bits["mean"] = sum(bits.values()) / len(bits)
        metrics = {f"val/loss/{source}": loss for source, loss in losses.items()}
        metrics |= {f"val/perplexity/{source}": _exp(loss) for source, loss in losses.items()}
        metrics |= {f"val/bits_per_byte/{source}": value for source, value in bits.items()}
        log_metrics(trainer, metrics)


def _exp(loss: float) -> float:
    """Return exp(loss), or infinity instead of an OverflowError if the run has diverged."""
    return math.exp(loss) if loss < 700 else math.inf
