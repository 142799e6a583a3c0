"""The LightningModule: defines a training step. It does not read or write files."""

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
from gpt_lightning.optim import SpikeDetector, apply_lr_multipliers_once, place_step_counters
from gpt_lightning.optimization_settings import OptimizationSettings
from gpt_lightning.sharding import local_shards, shard, total_norm


class SequenceBatch(Protocol):
    """The attributes that a batch must have; see `data_modules.Batch`."""

    token_ids: Tensor
    targets: Tensor
    mask: Tensor | None
    borders: Tensor | None


class _StepInFlight(NamedTuple):
    """A step whose loss and gradient norm have not reached the host yet."""

    step: int
    micro_nats: Tensor
    """(micro-batches,) of this rank, in nats."""
    numbers: AsyncDeviceScalars
    """Loss and gradient norm of the global batch."""


class NonFiniteLossError(FloatingPointError):
    """The loss, the gradient or the update of a step is NaN or infinite. All ranks raise this
    error; nothing of the step is saved.

    Attributes:
        step: Index of the step, from 0.
        loss, norm: Loss and gradient norm before clipping, over the global batch.
        what: What is not finite: "loss", "gradient" or "update".
        micro_batches: (rank, micro-batch) of each non-finite loss; empty unless `what` is "loss".
    """

    exit_code = 65

    def __init__(
        self, step: int, loss: float, norm: float, *, what: str, micro_batches: Sequence[tuple[int, int]] = ()
    ) -> None:
        made = "was applied, but its weights are not saved" if what == "update" else "was not applied"
        super().__init__(
            f"step {step + 1} {made}: its {what} is not finite (loss {loss:.4g}, gradient norm {norm:.4g})."
        )
        self.step, self.loss, self.norm, self.what, self.micro_batches = step, loss, norm, what, list(micro_batches)


class LitGPT(L.LightningModule):
    """Train a GPT on the mean loss in nats per loss-bearing token of each GLOBAL batch.

    With masked targets, micro-batches hold different numbers of loss-bearing tokens, so the mean of their means is not
    the mean of the batch. Each micro-batch therefore adds its SUM of nats divided by a fixed number of tokens. Before
    the optimizer step, the gradients are rescaled to the number of loss-bearing tokens on all ranks. The docstring of
    `loss_normalization` states what the gradients are at each hook.

    On a GPU, the loss of a step is read while the next step is computed, so that the device never waits for the host. A
    non-finite step is therefore found one step late, but before its results are shown or saved: see `settle`.

    Dropout's random numbers follow from (seed, step, micro-batch, rank). There is no generator state to save, and
    nothing between steps (validation, sampling, a restart) affects the training.

    Args:
        model: Trained in place.
        optimization: Optimizer, schedule and gradient clipping.
        seed: Seed of the run.
        settings: Settings of the run, stored in its checkpoints.

    Raises:
        NonFiniteLossError: During training.
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
        self._options: list[dict[str, Any]] = []  # of the optimizer's parameter groups
        self._spikes = SpikeDetector() if optimization.skip_spikes else None
        self.left_out: str | None = None
        """Why the last step was skipped; None if it was applied."""
        self.sequence_nats = torch.zeros(0)
        """(batch,) loss of each sequence of the last micro-batch, summed, in nats."""
        self._micro_nats: list[Tensor] = []  # of this step so far, on this rank
        self._nats = torch.zeros(())  # their sum; at the end of the step, over all ranks
        self._tokens = torch.zeros(())  # number of loss-bearing tokens; at the end of the step, over all ranks
        self._global_batch_tokens = 0
        self._learning_rate = 0.0
        self._loss = 0.0
        self._gradient_norm = 0.0
        self._in_flight: _StepInFlight | None = None
        self._losses_read: list[float] = []

    def configure_model(self) -> None:
        """Shard the weights if the strategy has a device mesh, which means that it shards."""
        if self.device_mesh is not None:
            gathered_in = torch.bfloat16 if self.trainer.precision == "bf16-mixed" else None
            shard(self.model, self.device_mesh["data_parallel"], gathered_in=gathered_in)

    def configure_optimizers(self) -> dict[str, Any]:  # type: ignore[override]
        optimizer = self._optimization.make_optimizer(self._optimization.make_groups(self.model))
        apply_lr_multipliers_once(optimizer)
        scheduler = LambdaLR(optimizer, self._optimization.schedule)
        self._options = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_start(self) -> None:
        """Apply the config's optimizer settings, even if the optimizer state comes from a run with other settings."""
        scheduler: Any = self.lr_schedulers()
        share = self._optimization.schedule(scheduler.last_epoch)
        for group, options in zip(self.trainer.optimizers[0].param_groups, self._options, strict=True):
            group |= options
            group["lr"] = group["initial_lr"] * share
        place_step_counters(self.trainer.optimizers[0])
        scheduler.base_lrs = [options["initial_lr"] for options in self._options]

    def training_step(self, batch: SequenceBatch, batch_idx: int) -> Tensor:
        """Compute the sum of the objective over a micro-batch, divided by its number of targets (masked targets
        included).

        Gradients: summed over the micro-batches of this step so far, scaled by the GradScaler.
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
        """Gradients: of the mean over all targets of the global batch, reduced over ranks, unscaled, not clipped."""
        self._nats, self._tokens = (
            self.trainer.strategy.reduce(value, reduce_op="sum")
            for value in (torch.stack(self._micro_nats).sum(), self._tokens)
        )
        self._learning_rate = optimizer.param_groups[0]["lr"]

    def configure_gradient_clipping(self, optimizer: Optimizer, *args: Any, **kwargs: Any) -> None:
        """Rescale the gradients to the mean over loss-bearing tokens and clip them, in one pass, unless the step is
        skipped.

        Gradients afterwards: of the mean over the loss-bearing tokens of the global batch, clipped; None if the step is
        skipped.
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
            limit = self._optimization.gradient_clip
            scale = to_mean if limit is None else to_mean * (limit / (norm + 1e-6)).clamp(max=1)
            torch._foreach_mul_(local_shards(gradients), scale)
        else:
            for parameter in self.parameters():
                parameter.grad = None  # the optimizer then changes nothing, including moments and weight decay

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Advance the schedule only for steps that changed weights. Gradients: those that the optimizer has used."""
        if self.left_out is None:
            scheduler.step()

    def settle(self) -> None:
        """Read the loss and gradient norm of the newest step, if they were not read yet. All ranks must call this
        method together.

        Call this method before anything that a step has changed is shown or saved.

        Raises:
            NonFiniteLossError: The loss or the gradient norm is not finite.
        """
        if self._in_flight is None:
            return
        in_flight, self._in_flight = self._in_flight, None
        self._loss, self._gradient_norm = in_flight.numbers.read()
        self.left_out = self._why_left_out(in_flight)
        if self.left_out is None:
            self._losses_read.append(self._loss)

    def take_losses(self) -> list[float]:
        """Return, in order, the losses read since the last call, of steps that changed weights."""
        losses, self._losses_read = self._losses_read, []
        return losses

    def on_validation_start(self) -> None:
        self.settle()

    def on_train_end(self) -> None:
        self.settle()

    def validation_step(self, batch: SequenceBatch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Return the summed nats and the number of loss-bearing tokens, so that batches are weighted by tokens."""
        return {
            "nats": self.model.loss_sum(batch.token_ids, batch.targets, batch.mask, batch.borders).nats,
            "tokens": self._loss_bearing(batch),
        }

    def step_metrics(self) -> dict[str, float]:
        """Return the last step's loss over its global batch, gradient norm before clipping, and learning rate."""
        self.settle()
        metrics = {"train/loss": self._loss, "train/grad_norm": self._gradient_norm, "train/lr": self._learning_rate}
        return {
            key: value for key, value in metrics.items() if math.isfinite(value)
        }  # norms that overflow fp16 are omitted

    @torch.no_grad()
    def refuse_ruined_weights(self) -> None:
        """Check on all ranks together that the weights and the optimizer's moments are finite.

        Raises:
            NonFiniteLossError: The loss, the gradient or the update of the last step is not finite.
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
        """Return whether the update of a step may be launched before the host has read its loss and gradient norm."""
        return self.device.type == "cuda" and self._spikes is None and self._scaler() is None

    def _scaler(self) -> Any:
        return getattr(self.trainer.precision_plugin, "scaler", None)

    def _why_left_out(self, in_flight: _StepInFlight) -> str | None:
        """Return why the step must be skipped; None if it is applied.

        Raises:
            NonFiniteLossError: The step is not finite, and training must stop.
        """
        if math.isfinite(self._loss) and math.isfinite(self._gradient_norm):
            return self._spikes.judge(self._loss, self._gradient_norm) if self._spikes else None
        scaler = self._scaler()
        if math.isfinite(self._loss) and scaler is not None and scaler.get_scale() > 1:
            return f"its gradient overflows fp16 at loss scale {scaler.get_scale():g}, which is now halved"
        nats: Any = self.all_gather(in_flight.micro_nats)
        finite = nats.reshape(self.trainer.world_size, -1).isfinite()
        where = [(rank, micro) for rank, micro in (~finite).nonzero().tolist()]
        what = "gradient" if math.isfinite(self._loss) else "loss"
        raise NonFiniteLossError(in_flight.step, self._loss, self._gradient_norm, what=what, micro_batches=where)

    def _seed_dropout(self, micro: int) -> None:
        place = f"{self._seed}/{self.trainer.global_step}/{micro}/{self.trainer.global_rank}"
        seed = int.from_bytes(blake2b(place.encode(), digest_size=8).digest(), "big") >> 1
        # torch.manual_seed also seeds every kind of GPU, which takes 1 ms
        (torch.default_generator if self.device.type == "cpu" else torch).manual_seed(seed)

    @staticmethod
    def _loss_bearing(batch: SequenceBatch) -> Tensor:
        if batch.mask is None:
            return torch.full((), batch.targets.numel(), dtype=torch.float32, device=batch.targets.device)
        return batch.mask.sum(dtype=torch.float32)
