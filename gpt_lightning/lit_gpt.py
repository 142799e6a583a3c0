"""The LightningModule: what a training step is. It reads and writes nothing."""

from collections.abc import Callable
from dataclasses import asdict
from hashlib import blake2b
from typing import Any, Protocol

import lightning as L
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from gpt_lightning.model import GPT
from gpt_lightning.optim import parameter_groups
from gpt_lightning.sharding import own_parts, shard, total_norm


class Sequences(Protocol):
    """What a batch must have; see `data_modules.Batch`."""

    token_ids: Tensor
    targets: Tensor
    mask: Tensor | None


class LitGPT(L.LightningModule):
    """Trains a GPT on the mean nats per loss-bearing token of each GLOBAL batch.

    Micro-batches hold different numbers of loss-bearing tokens once targets are masked, so the mean of their means is not
    the mean of the batch. Here each micro-batch adds its SUM of nats, over a fixed number of tokens, and before the
    optimizer's step the gradients are scaled to the number of tokens that really bore loss, on all ranks.

    Dropout's random numbers follow from (seed, step, micro-batch, rank). There is no generator state to save, and nothing
    that happens between steps (validation, sampling, a restart) can change the training.

    Args:
        model: trained in place.
        make_optimizer: parameter groups -> the optimizer; its learning rate is the peak.
        schedule: step -> share of the peak learning rate.
        gradient_clip: the largest global gradient norm.
        seed: the run's.
    """

    def __init__(
        self,
        model: GPT,
        *,
        make_optimizer: Callable[[list[dict[str, Any]]], Optimizer],
        schedule: Callable[[int], float],
        gradient_clip: float,
        seed: int,
    ) -> None:
        super().__init__()
        if not gradient_clip > 0:
            raise ValueError(f"gradient_clip is {gradient_clip}: it must be above 0.")
        self.model = model
        self._make_optimizer = make_optimizer
        self._schedule = schedule
        self._gradient_clip = gradient_clip
        self._seed = seed
        self._nats = torch.zeros(())  # of the step so far, on this rank
        self._tokens = torch.zeros(())  # loss-bearing ones, likewise
        self._global_batch_tokens = 0
        self._learning_rate = 0.0
        self._gradient_norm = torch.zeros(())

    def configure_model(self) -> None:
        """Cut the weights up where the strategy shards: it then has a mesh."""
        if self.device_mesh is not None:
            shard(self.model, self.device_mesh["data_parallel"])

    def configure_optimizers(self) -> dict[str, Any]:  # type: ignore[override]
        optimizer = self._make_optimizer(parameter_groups(self.model))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": LambdaLR(optimizer, self._schedule), "interval": "step"},
        }

    def on_train_start(self) -> None:
        """The learning rate of the first step is the schedule's own, though the optimizer's state may come from another run."""
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = group["initial_lr"] * self._schedule(self.trainer.global_step)

    def training_step(self, batch: Sequences, batch_idx: int) -> Tensor:
        accumulation = self.trainer.accumulate_grad_batches
        micro = batch_idx % accumulation
        self._seed_dropout(micro)
        loss = self.model.loss_sum(batch.token_ids, batch.targets, batch.mask)
        tokens = self._loss_bearing(batch)
        if micro == 0:
            self._nats, self._tokens = torch.zeros_like(loss.nats), torch.zeros_like(tokens)
            self._global_batch_tokens = batch.targets.numel() * accumulation * self.trainer.world_size
        self._nats += loss.nats
        self._tokens += tokens
        return loss.objective / batch.targets.numel()  # Lightning averages over the accumulation and the ranks

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        self._nats, self._tokens = (
            self.trainer.strategy.reduce(value, reduce_op="sum") for value in (self._nats, self._tokens)
        )
        self._learning_rate = optimizer.param_groups[0]["lr"]

    def configure_gradient_clipping(self, optimizer: Optimizer, *args: Any, **kwargs: Any) -> None:
        """Scale to the mean over loss-bearing tokens and clip, in one pass over the gradients."""
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        to_mean = self._global_batch_tokens / self._tokens.clamp(min=1)
        self._gradient_norm = total_norm(gradients) * to_mean
        torch._foreach_mul_(own_parts(gradients), to_mean * (self._gradient_clip / (self._gradient_norm + 1e-6)).clamp(max=1))

    def validation_step(self, batch: Sequences, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Sum of nats, and loss-bearing tokens: sums, so that a shorter last batch weighs no more than it holds."""
        return {
            "nats": self.model.loss_sum(batch.token_ids, batch.targets, batch.mask).nats,
            "tokens": self._loss_bearing(batch),
        }

    def step_metrics(self) -> dict[str, float]:
        """Of the step just done: loss over its global batch, gradient norm before clipping, learning rate it used."""
        return {
            "train/loss": (self._nats / self._tokens.clamp(min=1)).item(),
            "train/grad_norm": float(self._gradient_norm),
            "train/lr": self._learning_rate,
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["model_config"] = asdict(self.model.config)

    def _seed_dropout(self, micro: int) -> None:
        place = f"{self._seed}/{self.trainer.global_step}/{micro}/{self.trainer.global_rank}"
        torch.manual_seed(int.from_bytes(blake2b(place.encode(), digest_size=8).digest(), "big") >> 1)

    @staticmethod
    def _loss_bearing(batch: Sequences) -> Tensor:
        if batch.mask is None:
            return torch.tensor(batch.targets.numel(), dtype=torch.float32, device=batch.targets.device)
        return batch.mask.sum(dtype=torch.float32)
