"""Steps that must change nothing: not finite, beyond fp16, or standing out."""

import math
from functools import partial
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor
from torch.utils.data import DataLoader

from data_modules.batch import Batch
from gpt_lightning.lit_gpt import LitGPT, NonFiniteLossError
from gpt_lightning.model import GPT, GPTConfig
from gpt_lightning.optim import MuonAdamW, SpikeDetector, parameter_groups
from gpt_lightning.optimization_settings import OptimizationSettings
from running.training.lightning_warnings import quiet_lightning

STEPS, ACCUMULATION = 6, 3
ADAMW: dict[str, Any] = {"make_optimizer": partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.1)}
MUON: dict[str, Any] = {
    "make_optimizer": partial(MuonAdamW, lr=1e-2, weight_decay=0.1, fused=True),
    "make_groups": partial(parameter_groups, muon=True),
}
with_either = pytest.mark.parametrize("optimizer", [ADAMW, MUON], ids=["adamw", "muon"])


class Disturbed(LitGPT):
    """Multiplies the loss of one micro-batch by a factor."""

    factor, at_step, at_micro = 1.0, 3, 1

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        hit = (self.trainer.global_step, batch_idx % ACCUMULATION) == (self.at_step, self.at_micro)
        self.model.factor = self.factor if hit else 1.0
        return super().training_step(batch, batch_idx)


class Loud(GPT):
    factor = 1.0

    def loss_sum(self, *args: Any, **more: Any) -> Any:
        loss = super().loss_sum(*args, **more)
        return loss._replace(objective=loss.objective * self.factor, nats=loss.nats * self.factor)


class Record(L.Callback):
    """What each step did."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.weights: list[Tensor] = []
        self.left_out: list[str | None] = []

    def on_train_batch_end(self, trainer: Any, module: Any, *args: Any) -> None:
        if trainer.global_step > len(self.rates):
            self.rates.append(module.step_metrics()["train/lr"])
            self.weights.append(module.model.embedding.weight.detach().clone())
            self.left_out.append(module.left_out)

    def on_exception(self, trainer: Any, module: Any, exception: BaseException) -> None:
        self.weights.append(module.model.embedding.weight.detach().clone())

    @property
    def still(self) -> list[int]:
        """The steps that changed no weight, the first is 0."""
        return [n for n in range(1, len(self.weights)) if torch.equal(self.weights[n], self.weights[n - 1])]


def fit(
    record: Record,
    *plugins: Any,
    factor: float = 1.0,
    at_step: int = 3,
    steps: int = STEPS,
    skip_spikes: bool = False,
    optimizer: dict[str, Any] = ADAMW,
) -> LitGPT:
    torch.manual_seed(0)
    ids = torch.randint(0, 61, (steps * ACCUMULATION, 2, 9))
    batches = [Batch(micro[:, :-1], micro[:, 1:], None, *torch.zeros(2, 2, dtype=torch.long)) for micro in ids]
    lit = Disturbed(
        Loud(GPTConfig(vocab_size=61, max_seq_len=8, d_model=16, n_layers=1, n_heads=2, d_ff=32)),
        OptimizationSettings(
            **optimizer, schedule=lambda step: 1 / (step + 1), gradient_clip=1.0, skip_spikes=skip_spikes
        ),
        seed=0,
    )
    lit.factor, lit.at_step = factor, at_step
    with quiet_lightning():
        trainer = L.Trainer(
            accelerator="cpu",
            max_steps=steps,
            accumulate_grad_batches=ACCUMULATION,
            limit_val_batches=0,
            callbacks=[record],
            plugins=list(plugins),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        loader: DataLoader = DataLoader(batches, batch_size=None)  # type: ignore[arg-type]
        trainer.fit(lit, loader, loader)
    return lit


@pytest.mark.parametrize("factor", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_ends_the_run_before_the_update(factor: float) -> None:
    calm, ended = Record(), Record()
    fit(calm)
    with pytest.raises(NonFiniteLossError, match=r"^step 4 was not applied: its loss is not finite") as fault:
        fit(ended, factor=factor)
    assert fault.value.micro_batches == [(0, 1)]
    assert fault.value.exit_code == 65
    assert torch.equal(ended.weights[-1], calm.weights[2])  # as after the third step, to the last bit


def half_precision(scale: float) -> MixedPrecision:
    return MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=scale))


@with_either
def test_what_does_not_fit_into_fp16_is_left_out_and_the_schedule_waits(optimizer: dict[str, Any]) -> None:
    """At a scale of 2^30 the first gradients overflow, and the scale is halved until they do not."""
    record = Record()
    fit(record, half_precision(2.0**30), steps=24, optimizer=optimizer)
    left_out = [n for n, why in enumerate(record.left_out) if why]
    assert left_out[0] == 0
    assert len(left_out) < 20
    assert "overflows fp16 at loss scale 1.07374e+09" in str(record.left_out[0])
    assert record.still == left_out[1:]
    updates = [sum(why is None for why in record.left_out[:n]) for n in range(24)]
    assert record.rates == pytest.approx([1e-2 / (done + 1) for done in updates])


def test_a_loss_that_is_not_finite_is_none_of_the_scalers_business() -> None:
    with pytest.raises(NonFiniteLossError):
        fit(Record(), half_precision(2.0**10), factor=math.nan)


@with_either
def test_a_spike_is_left_out_moments_and_schedule_included(optimizer: dict[str, Any]) -> None:
    """The run then goes on as if the optimizer had never seen the step."""
    calm, skipping, training = Record(), Record(), Record()
    spike: dict[str, Any] = {"factor": 30.0, "at_step": 135, "steps": 140, "optimizer": optimizer}
    fit(calm, steps=140, skip_spikes=True, optimizer=optimizer)
    fit(skipping, skip_spikes=True, **spike)
    fit(training, **spike)
    assert [n for n, why in enumerate(skipping.left_out) if why] == skipping.still == [135]
    assert "standard deviations above the mean of the last 128" in str(skipping.left_out[135])
    assert not any(calm.left_out)
    assert not any(training.left_out)
    assert all(map(torch.equal, calm.weights[:135], skipping.weights[:135]))
    assert skipping.rates[136] == calm.rates[135] == pytest.approx(1e-2 / 136)


def test_a_rise_that_stays_is_trained_on_before_long() -> None:
    """Where the mix changes, the loss may rise for good: the window comes to know it."""
    spikes = SpikeDetector()
    noise = torch.randn(400, generator=torch.Generator().manual_seed(0)).tolist()
    before = [spikes.judge(3 + 0.01 * x, 1 + 0.01 * x) for x in noise[:200]]
    after = [spikes.judge(4 + 0.01 * x, 1 + 0.01 * x) for x in noise[200:]]
    assert not any(before)
    assert after[0] is not None
    assert sum(why is not None for why in after) <= 5


def test_spikes_go_on_where_they_were() -> None:
    straight, first, second = SpikeDetector(), SpikeDetector(), SpikeDetector()
    values = [3 + 0.1 * math.sin(n) for n in range(300)]
    values[200] = 9.0
    expected = [straight.judge(value, value) for value in values]
    got = [first.judge(value, value) for value in values[:150]]
    second.remember(first.state())
    assert got + [second.judge(value, value) for value in values[150:]] == expected
    assert [n for n, why in enumerate(expected) if why] == [200]
