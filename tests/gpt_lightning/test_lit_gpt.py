"""What a step is: its gradient is that of the global batch's mean, however the batch is cut."""

from collections.abc import Callable
from functools import partial
from typing import Any

import bitsandbytes
import lightning as L
import pytest
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from data_modules.batch import Batch
from gpt_lightning.lit_gpt import LitGPT
from gpt_lightning.model import GPT, GPTConfig
from gpt_lightning.optim import parameter_groups
from gpt_lightning.optimization_settings import OptimizationSettings
from running.training.lightning_warnings import quiet_lightning

SIZES = {"vocab_size": 61, "max_seq_len": 8, "d_model": 16, "n_layers": 1, "n_heads": 2, "d_ff": 32}


def model(**choices: Any) -> GPT:
    torch.manual_seed(0)
    return GPT(GPTConfig(**SIZES | choices))


def global_batch(*, masked: bool) -> Batch:
    """12 sequences with very different numbers of loss-bearing tokens."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 61, (12, 9), generator=generator)
    mask = torch.rand(12, 8, generator=generator) < torch.linspace(0.05, 0.9, 12)[:, None]
    return Batch(ids[:, :-1], ids[:, 1:], mask if masked else None, *torch.zeros(2, 12, dtype=torch.long))


def cut(batch: Batch, size: int) -> list[Batch]:
    parts = [value.split(size) if value is not None else [None] * (12 // size) for value in batch]
    return [Batch(*micro) for micro in zip(*parts, strict=True)]


def steady(make_optimizer: Callable[..., Optimizer], *, gradient_clip: float = 1.0) -> OptimizationSettings:
    """At a constant learning rate."""
    return OptimizationSettings(make_optimizer=make_optimizer, schedule=lambda step: 1.0, gradient_clip=gradient_clip)


def fit(lit: LitGPT, batches: list[Batch], *, steps: int = 1) -> L.Trainer:
    with quiet_lightning():
        trainer = L.Trainer(
            accelerator="cpu",
            max_steps=steps,
            accumulate_grad_batches=len(batches) // steps,
            limit_val_batches=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        loader: DataLoader = DataLoader(batches, batch_size=None)  # type: ignore[arg-type]
        trainer.fit(lit, loader, loader)
    return trainer


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("micro_batch", [1, 3, 4, 12])
def test_the_gradient_is_that_of_the_mean_over_the_global_batch(masked: bool, micro_batch: int) -> None:
    batch = global_batch(masked=masked)
    oracle = model()
    loss = oracle.loss(batch.token_ids, batch.targets, batch.mask)
    loss.backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in oracle.parameters() if p.grad is not None])
    trained = model()
    before = [p.detach().clone() for p in trained.parameters()]
    lit = LitGPT(trained, steady(partial(torch.optim.SGD, lr=1.0), gradient_clip=1e9), seed=0)
    fit(lit, cut(batch, micro_batch))
    for was, now, wanted in zip(before, trained.parameters(), oracle.parameters(), strict=True):
        assert wanted.grad is not None
        torch.testing.assert_close(was - now, wanted.grad, atol=2e-6, rtol=1e-4)
    metrics = lit.step_metrics()
    assert metrics["train/loss"] == pytest.approx(loss.item(), rel=1e-6)
    assert metrics["train/grad_norm"] == pytest.approx(norm.item(), rel=1e-4)


def test_gradients_are_clipped_to_the_global_norm() -> None:
    trained = model()
    before = [p.detach().clone() for p in trained.parameters()]
    lit = LitGPT(trained, steady(partial(torch.optim.SGD, lr=1.0), gradient_clip=0.01), seed=0)
    fit(lit, cut(global_batch(masked=True), 4))
    moved = torch.nn.utils.get_total_norm([was - now for was, now in zip(before, trained.parameters(), strict=True)])
    assert moved.item() == pytest.approx(0.01, rel=1e-3)
    assert lit.step_metrics()["train/grad_norm"] > 0.01


def test_dropout_follows_from_seed_and_step_alone() -> None:
    """Whatever else draws random numbers between the steps, the training is the same."""

    def trained(*, seed: int, disturb: bool) -> list[Tensor]:
        lit = LitGPT(model(dropout=0.3), steady(partial(torch.optim.AdamW, lr=1e-2)), seed=seed)
        if disturb:
            lit.on_train_batch_start = lambda *args: torch.rand(7).sum() and None  # type: ignore[method-assign]
        fit(lit, cut(global_batch(masked=False), 3), steps=2)
        return [p.detach() for p in lit.model.parameters()]

    straight, disturbed, other = (
        trained(seed=0, disturb=False),
        trained(seed=0, disturb=True),
        trained(seed=1, disturb=False),
    )
    assert all(map(torch.equal, straight, disturbed))
    assert not all(map(torch.equal, straight, other))


def test_dropout_differs_between_micro_batches_and_steps() -> None:
    """The same sequences in both micro-batches of two steps that change no weight."""
    lit = LitGPT(model(dropout=0.3), steady(partial(torch.optim.SGD, lr=0.0)), seed=0)
    nats: list[float] = []
    lit.on_train_batch_end = lambda *args: nats.append(lit.sequence_nats.sum().item())  # type: ignore[method-assign]
    fit(lit, [cut(global_batch(masked=False), 3)[0]] * 4, steps=2)
    assert len(nats) == len(set(nats)) == 4


def test_only_matrices_decay() -> None:
    decaying, others = parameter_groups(model())
    assert all(p.dim() >= 2 for p in decaying["params"])
    assert all(p.dim() < 2 for p in others["params"])
    assert others["weight_decay"] == 0.0
    assert "weight_decay" not in decaying
    assert sum(p.numel() for group in (decaying, others) for p in group["params"]) == model().n_parameters()


def test_8bit_adamw_trains_on_a_cpu() -> None:
    optimization = steady(partial(bitsandbytes.optim.AdamW8bit, lr=1e-2, min_8bit_size=16))
    lit = LitGPT(model(d_model=64, vocab_size=61), optimization, seed=0)
    batch = global_batch(masked=False)
    before = lit.model.loss(batch.token_ids, batch.targets).item()
    trainer = fit(lit, [batch] * 30, steps=30)
    states = trainer.optimizers[0].state
    assert any(
        value.dtype == torch.uint8 for state in states.values() for value in state.values() if torch.is_tensor(value)
    )
    assert lit.model.loss(batch.token_ids, batch.targets).item() < before - 1


class _Noting(LitGPT):
    """Keeps the gradients that a hook finds."""

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        super().on_before_optimizer_step(optimizer)
        self.found = [p.grad.clone() for p in self.model.parameters() if p.grad is not None]


def test_before_the_optimizers_step_gradients_are_those_of_the_mean_over_all_targets() -> None:
    batch = global_batch(masked=True)
    oracle = model()
    (oracle.loss_sum(batch.token_ids, batch.targets, batch.mask).objective / batch.targets.numel()).backward()
    lit = _Noting(model(), steady(partial(torch.optim.SGD, lr=1.0), gradient_clip=0.01), seed=0)
    fit(lit, cut(batch, 3))
    for found, parameter in zip(lit.found, oracle.parameters(), strict=True):
        torch.testing.assert_close(found, parameter.grad, atol=2e-6, rtol=1e-4)
