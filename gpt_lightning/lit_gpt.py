"""The LightningModule: what a training step is. It reads and writes nothing."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from hashlib import blake2b
from typing import Any, NamedTuple, Protocol

import lightning as L
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from gpt_lightning.async_device_scalars import AsyncDeviceScalars
from gpt_lightning.loss_normalization import loss_normalization
from gpt_lightning.model import GPT
from gpt_lightning.optim import SpikeDetector, apply_multipliers, place_step_counters
from gpt_lightning.optimization_settings import OptimizationSettings
from gpt_lightning.sharding import local_shards, shard, total_norm


class SequenceBatch(Protocol):
    """What a batch must have; see `data_modules.Batch`."""

    token_ids: Tensor
    targets: Tensor
    mask: Tensor | None
    borders: Tensor | None


class _StepInFlight(NamedTuple):
    """A step whose loss and gradient norm the host has not read yet."""

    step: int
    micro_nats: Tensor
    """(micro-batches,) of this rank."""
    numbers: AsyncDeviceScalars
    """Loss and gradient norm."""


class NonFiniteLossError(FloatingPointError):
    """The loss, the gradient or the update of a step is infinite or not a number, on all ranks alike. Nothing of it is kept.

    Attributes:
        step: its number, the first is 0.
        loss, norm: over its global batch; the norm before clipping.
        what: of the step is not finite.
        micro_batches: (rank, micro-batch) of those with such a loss; none if it is not the loss.
    """

    exit_code = 65

    def __init__(
        self, step: int, loss: float, norm: float, *, what: str, micro_batches: Sequence[tuple[int, int]] = ()
    ) -> None:
        made = "was made, and what it has made of the weights is not saved" if what == "update" else "was not made"
        super().__init__(f"step {step + 1} {made}: its loss is {loss:.4g} and its gradient norm {norm:.4g}.")
        self.step, self.loss, self.norm, self.what, self.micro_batches = step, loss, norm, what, list(micro_batches)


class LitGPT(L.LightningModule):
    """Trains a GPT on the mean nats per loss-bearing token of each GLOBAL batch.

    Micro-batches hold different numbers of loss-bearing tokens once targets are masked, so the mean of their means is not
    the mean of the batch. Here each micro-batch adds its SUM of nats, over a fixed number of tokens, and before the
    optimizer's step the gradients are scaled to the number of tokens that really bore loss, on all ranks. The module
    `loss_normalization` says what the gradients are at each hook.

    On a GPU the loss of a step is read while the next step is computed, so that the device never waits for the host. A ruined
    step is therefore found one step late, but before anything that it changed is shown or saved: see `settle`.

    Dropout's random numbers follow from (seed, step, micro-batch, rank). There is no generator state to save, and nothing
    that happens between steps (validation, sampling, a restart) can change the training.

    Args:
        model: trained in place.
        optimization: how gradients become steps.
        seed: the run's.
        settings: the run's, as its checkpoints keep them.

    Raises:
        NonFiniteLossError: while training.
    """

    def __init__(
        self,
        model: GPT,
        optimization: OptimizationSettings,
        *,
        seed: int,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self._optimization = optimization
        self._seed = seed
        self._settings = settings or {}
        self._options: list[dict[str, Any]] = []  # of the optimizer's groups
        self._spikes = SpikeDetector() if optimization.skip_spikes else None
        self.left_out: str | None = None
        """Why the step just done changed no weight; None: it did."""
        self.sequence_nats = torch.zeros(0)
        """(batch,) nats of each sequence of the micro-batch just done."""
        self._micro_nats: list[Tensor] = []  # of the step so far, on this rank
        self._nats = torch.zeros(())  # their sum; when the step is done, over all ranks
        self._tokens = torch.zeros(())  # loss-bearing ones, likewise
        self._global_batch_tokens = 0
        self._learning_rate = 0.0
        self._loss = 0.0
        self._gradient_norm = 0.0
        self._in_flight: _StepInFlight | None = None
        self._losses_read: list[float] = []

    def configure_model(self) -> None:
        """Cut the weights up where the strategy shards: it then has a mesh."""
        if self.device_mesh is not None:
            gathered_in = torch.bfloat16 if self.trainer.precision == "bf16-mixed" else None
            shard(self.model, self.device_mesh["data_parallel"], gathered_in=gathered_in)

    def configure_optimizers(self) -> dict[str, Any]:  # type: ignore[override]
        optimizer = self._optimization.make_optimizer(self._optimization.make_groups(self.model))
        apply_multipliers(optimizer)
        scheduler = LambdaLR(optimizer, self._optimization.schedule)
        self._options = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_start(self) -> None:
        """What the config says of the optimizer holds, though its state may come from a run that was told otherwise."""
        scheduler: Any = self.lr_schedulers()
        share = self._optimization.schedule(scheduler.last_epoch)
        for group, options in zip(self.trainer.optimizers[0].param_groups, self._options, strict=True):
            group |= options
            group["lr"] = group["initial_lr"] * share
        place_step_counters(self.trainer.optimizers[0])
        scheduler.base_lrs = [options["initial_lr"] for options in self._options]

    def training_step(self, batch: SequenceBatch, batch_idx: int) -> Tensor:
        """The objective of a micro-batch, summed and divided by its targets, whether they bear loss or not.

        Gradients: summed over the micro-batches of this step that are done, scaled by the GradScaler.
        """
        accumulation = self.trainer.accumulate_grad_batches
        micro = batch_idx % accumulation
        self._seed_dropout(micro)
        loss = self.model.loss_sum(batch.token_ids, batch.targets, batch.mask, batch.borders)
        tokens = self._loss_bearing(batch)
        if micro == 0:
            self._micro_nats, self._tokens = [], torch.zeros_like(tokens)
            self._global_batch_tokens = batch.targets.numel() * accumulation * self.trainer.world_size
        self._micro_nats.append(loss.nats.detach())
        self.sequence_nats = loss.nats_of_tokens.detach().reshape(batch.targets.shape).sum(dim=1)
        self._tokens += tokens
        return loss.objective / batch.targets.numel()  # Lightning averages over the accumulation and the ranks

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Gradients: of the mean over all targets of the global batch, reduced over the ranks, unscaled, not clipped."""
        self._nats, self._tokens = (
            self.trainer.strategy.reduce(value, reduce_op="sum")
            for value in (torch.stack(self._micro_nats).sum(), self._tokens)
        )
        self._learning_rate = optimizer.param_groups[0]["lr"]

    def configure_gradient_clipping(self, optimizer: Optimizer, *args: Any, **kwargs: Any) -> None:
        """Scale to the mean over loss-bearing tokens and clip, in one pass over the gradients; unless the step is left out.

        Gradients after: of the mean over the loss-bearing tokens of the global batch, clipped; None if it is left out.
        """
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        to_mean = loss_normalization(self._global_batch_tokens, self._tokens)
        norm = total_norm(gradients) * to_mean
        loss = self._nats / self._tokens.clamp(min=1)
        self.settle()  # the step before
        numbers = AsyncDeviceScalars(torch.stack([loss, norm]))
        self._in_flight = _StepInFlight(self.trainer.global_step, torch.stack(self._micro_nats), numbers)
        if not self._reads_late():
            self.settle()
        if self.left_out is None:
            scale = to_mean * (self._optimization.gradient_clip / (norm + 1e-6)).clamp(max=1)
            torch._foreach_mul_(local_shards(gradients), scale)
        else:
            for parameter in self.parameters():
                parameter.grad = None  # for the optimizer, moments and weight decay included, there is nothing to do

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """The schedule counts the steps that changed weights. Gradients: those that the optimizer has used."""
        if self.left_out is None:
            scheduler.step()

    def settle(self) -> None:
        """Read the numbers of the newest step, where they have not been read yet; all ranks together.

        Whoever shows or keeps what a step has changed calls this first.

        Raises:
            NonFiniteLossError: the step is ruined.
        """
        if self._in_flight is None:
            return
        in_flight, self._in_flight = self._in_flight, None
        self._loss, self._gradient_norm = in_flight.numbers.read()
        self.left_out = self._why_left_out(in_flight)
        if self.left_out is None:
            self._losses_read.append(self._loss)

    def take_losses(self) -> list[float]:
        """The losses of steps that changed weights and were read since the last call, in their order."""
        losses, self._losses_read = self._losses_read, []
        return losses

    def on_validation_start(self) -> None:
        self.settle()

    def on_train_end(self) -> None:
        self.settle()

    def validation_step(self, batch: SequenceBatch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Sum of nats, and loss-bearing tokens: sums, so that a shorter last batch weighs no more than it holds."""
        return {
            "nats": self.model.loss_sum(batch.token_ids, batch.targets, batch.mask, batch.borders).nats,
            "tokens": self._loss_bearing(batch),
        }

    def step_metrics(self) -> dict[str, float]:
        """Of the step just done: loss over its global batch, gradient norm before clipping, learning rate it used."""
        self.settle()
        metrics = {"train/loss": self._loss, "train/grad_norm": self._gradient_norm, "train/lr": self._learning_rate}
        return {key: value for key, value in metrics.items() if math.isfinite(value)}  # what fp16 left out has no norm

    @torch.no_grad()
    def refuse_ruined_weights(self) -> None:
        """All ranks together make sure that weights and the optimizer's moments are numbers.

        Raises:
            NonFiniteLossError: after the update of the last step some weights are not finite, although loss and gradient were;
                or these were not.
        """
        self.settle()
        states = (value for optimizer in self.trainer.optimizers for value in optimizer.state.values())
        moments = [value for state in states for value in state.values() if isinstance(value, Tensor)]
        parts = [part for part in local_shards([*self.parameters(), *moments]) if part.is_floating_point()]
        finite = all(bool(part.isfinite().all()) for part in parts)
        if not self.trainer.strategy.reduce_boolean_decision(finite, all=True):
            raise NonFiniteLossError(self.trainer.global_step - 1, self._loss, self._gradient_norm, what="update")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["model_config"] = asdict(self.model.config)
        checkpoint["config"] = dict(self._settings)
        if self._spikes:
            checkpoint["spikes"] = self._spikes.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self._spikes and "spikes" in checkpoint:
            self._spikes.remember(checkpoint["spikes"])

    def _reads_late(self) -> bool:
        """Whether no decision about a step needs its numbers before its update."""
        return self.device.type == "cuda" and self._spikes is None and self._scaler() is None

    def _scaler(self) -> Any:
        return getattr(self.trainer.precision_plugin, "scaler", None)

    def _why_left_out(self, in_flight: _StepInFlight) -> str | None:
        """Why the step must not change the weights; None: it may.

        Raises:
            NonFiniteLossError: nor may any step after it.
        """
        if math.isfinite(self._loss) and math.isfinite(self._gradient_norm):
            return self._spikes.judge(self._loss, self._gradient_norm) if self._spikes else None
        scaler = self._scaler()
        if math.isfinite(self._loss) and scaler is not None and scaler.get_scale() > 1:
            return f"its gradient does not fit into fp16 at a scale of {scaler.get_scale():g}, which is halved"
        nats: Any = self.all_gather(in_flight.micro_nats)
        finite = nats.reshape(self.trainer.world_size, -1).isfinite()
        where = [(rank, micro) for rank, micro in (~finite).nonzero().tolist()]
        what = "gradient" if math.isfinite(self._loss) else "loss"
        raise NonFiniteLossError(in_flight.step, self._loss, self._gradient_norm, what=what, micro_batches=where)

    def _seed_dropout(self, micro: int) -> None:
        place = f"{self._seed}/{self.trainer.global_step}/{micro}/{self.trainer.global_rank}"
        torch.manual_seed(int.from_bytes(blake2b(place.encode(), digest_size=8).digest(), "big") >> 1)

    @staticmethod
    def _loss_bearing(batch: SequenceBatch) -> Tensor:
        if batch.mask is None:
            return torch.full((), batch.targets.numel(), dtype=torch.float32, device=batch.targets.device)
        return batch.mask.sum(dtype=torch.float32)
