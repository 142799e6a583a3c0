"""The loss head against cross-entropy written out in fp64."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gpt_lightning.model import loss_head
from gpt_lightning.model.loss_head import cross_entropy_sum

TOKENS, VOCAB, WIDTH = 48, 97, 16


def plain(
    x: Tensor, weight: Tensor, targets: Tensor, mask: Tensor | None, soft_cap: float | None, z_loss: float
) -> tuple[Tensor, Tensor, Tensor]:
    logits = x @ weight.T
    if soft_cap is not None:
        logits = soft_cap * torch.tanh(logits / soft_cap)
    nats = F.cross_entropy(logits, targets, reduction="none")
    objective = nats + z_loss * logits.logsumexp(dim=-1) ** 2
    bears_loss = torch.ones_like(targets, dtype=torch.bool) if mask is None else mask
    nats_of_tokens = nats.where(bears_loss, 0.0).detach()
    return objective[bears_loss].sum(), nats_of_tokens.sum(), nats_of_tokens


def inputs(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    x, weight = (torch.randn(n, WIDTH, dtype=torch.float64, generator=generator) for n in (TOKENS, VOCAB))
    targets = torch.randint(0, VOCAB, (TOKENS,), generator=generator)
    return x.to(dtype), weight.to(dtype), targets, torch.rand(TOKENS, generator=generator) < 0.3


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("soft_cap", "z_loss"), [(None, 0.0), (3.0, 0.0), (None, 1e-2), (3.0, 1e-2)])
@pytest.mark.parametrize("rows_at_once", [1, 5, 1000])
def test_equals_cross_entropy(
    masked: bool, soft_cap: float | None, z_loss: float, rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        monkeypatch.setattr(loss_head, "CHUNK_BYTES", rows_at_once * VOCAB * dtype.itemsize)
        monkeypatch.setattr(loss_head, "BLOCK", 2 * VOCAB)
        x, weight, targets, mask = inputs(dtype)
        exact = [value.double().clone().requires_grad_() for value in (x, weight)]
        objective, *nats = plain(*exact, targets, mask if masked else None, soft_cap, z_loss)
        (objective * 0.37).backward()  # an upstream factor, as accumulation and loss scaling make
        ours = x.clone().requires_grad_(), weight.clone().requires_grad_()
        loss = cross_entropy_sum(*ours, targets, mask if masked else None, soft_cap=soft_cap, z_loss=z_loss)
        (loss.objective * 0.37).backward()
        got_values = (*loss, *(value.grad for value in ours))
        expected_values = (objective, *nats, *(value.grad for value in exact))
        for got, expected in zip(got_values, expected_values, strict=True):
            assert got is not None
            assert expected is not None
            assert got.dtype == dtype
            assert (got.double() - expected).norm() <= tolerance * expected.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_logits_of_a_batch_are_never_held(dtype: torch.dtype) -> None:
    """Nothing that is made is larger than a chunk's logits, or than the weight."""
    tokens, vocab, width = 4096, 20_011, 8
    x = torch.randn(tokens, width, requires_grad=True)
    weight = torch.randn(vocab, width, requires_grad=True)
    sizes: list[int] = []

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            sizes.extend(
                t.numel() * t.itemsize for t in (out if isinstance(out, tuple) else [out]) if isinstance(t, Tensor)
            )
            return out

    with Record(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        cross_entropy_sum(x, weight, torch.randint(vocab, (tokens,)), None).objective.backward()
    assert max(sizes) <= loss_head.CHUNK_BYTES
    assert max(sizes) * 4 < tokens * vocab * dtype.itemsize


def test_a_masked_token_may_have_any_logits() -> None:
    x = torch.tensor([[1.0], [1e30]], requires_grad=True)
    weight = torch.tensor([[1.0], [-1.0], [1e10]], requires_grad=True)
    loss = cross_entropy_sum(x, weight, torch.tensor([2, 1]), torch.tensor([True, False]))
    loss.objective.backward()
    for value in (*loss, x.grad, weight.grad):
        assert value is not None
        assert value.isfinite().all()


def test_the_gradient_of_many_tokens_stays_in_the_range_of_fp16() -> None:
    x = torch.full((4096, 1), 60.0)
    weight = torch.zeros(2, 1, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.float16):
        cross_entropy_sum(x, weight, torch.zeros(4096, dtype=torch.long), None).objective.backward()
    assert weight.grad is not None
    assert weight.grad.flatten().tolist() == [-4096 * 30, 4096 * 30]


def test_no_gradient_is_formed_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, targets, _ = inputs(torch.float32)
    with torch.no_grad(), monkeypatch.context() as patch:
        for product in ("gradient_of_x", "add_to_gradient_of_weight"):
            patch.delattr(loss_head._Products, product)
        cross_entropy_sum(x.requires_grad_(), weight.requires_grad_(), targets, None)
    weight = weight.detach()
    cross_entropy_sum(x, weight, targets, None).objective.backward()  # the head may be frozen
    assert x.grad is not None
    assert weight.grad is None


def test_a_wide_range_of_logits_stays_finite() -> None:
    x, weight, targets, _ = inputs(torch.float32)
    x = (1000 * x).requires_grad_()
    loss = cross_entropy_sum(x, weight, targets, None)
    loss.objective.backward()
    torch.testing.assert_close(loss.nats, F.cross_entropy(x.detach() @ weight.T, targets, reduction="sum"))
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_a_second_backward_pass_fails_rather_than_scales_twice() -> None:
    x, weight, targets, _ = inputs(torch.float32)
    loss = cross_entropy_sum(x.requires_grad_(), weight, targets, None).objective
    loss.backward(retain_graph=True)
    with pytest.raises(AttributeError):
        loss.backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_errors_are_those_of_the_precision(dtype: torch.dtype) -> None:
    """Against fp64 with inputs rounded as autocast rounds them; the weight's gradient is summed in fp32."""
    x, weight, targets, mask = inputs(torch.float32)
    exact = x.to(dtype).double().requires_grad_(), weight.to(dtype).double().requires_grad_()
    objective, *_ = plain(*exact, targets, mask, None, 0.0)
    objective.backward()
    ours = x.clone().requires_grad_(), weight.clone().requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        loss = cross_entropy_sum(*ours, targets, mask)
    loss.objective.backward()
    assert loss.nats.dtype == torch.float32
    epsilon = torch.finfo(dtype).eps
    assert abs(loss.nats.double() - objective) <= epsilon * objective
    for got, expected in zip(ours, exact, strict=True):
        assert got.grad is not None
        assert expected.grad is not None
        assert got.grad.dtype == torch.float32
        assert (got.grad.double() - expected.grad).norm() <= 2 * epsilon * expected.grad.norm()
