"""Triton's loss kernel against torch's, and which of them is taken."""

import importlib.util

import pytest
import torch
from torch import Tensor

from gpt_lightning.model.loss_head import cross_entropy_sum
from gpt_lightning.model.loss_kernels import choose_loss_kernel, loss_kernel, torch_loss

HAS_TRITON = importlib.util.find_spec("triton") is not None
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"  # of the kernel: on a CPU Triton interprets it
pytestmark = pytest.mark.skipif(not HAS_TRITON, reason="needs the package triton")


def rows_of_logits(vocab_size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(vocab_size)
    logits = 4 * torch.randn(7, vocab_size, generator=generator)
    logits[3] *= 20  # one that is nearly certain
    targets = torch.randint(0, vocab_size, (7,), generator=generator)
    targets[0], targets[1] = 0, vocab_size - 1
    bears_loss = torch.tensor([True, True, False, True, False, True, True])
    return logits.to(DEVICE, dtype), targets.to(DEVICE), bears_loss.to(DEVICE)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("soft_cap", "z_loss"), [(None, 0.0), (15.0, 0.0), (None, 1e-2), (15.0, 1e-2)])
def test_losses_and_gradients_are_those_of_torch(masked: bool, soft_cap: float | None, z_loss: float) -> None:
    """Losses in fp32; gradients as near as their dtype can tell. A row may fill one block, several, or part of one."""
    for vocab_size in (5, 4096, 9001):
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            logits, targets, bears_loss = rows_of_logits(vocab_size, dtype)
            settings = (targets, bears_loss if masked else None, soft_cap, z_loss, True)
            expected_gradient, gradient = logits.double(), logits.clone()
            expected = torch_loss(expected_gradient, *settings)
            got = loss_kernel("triton", dtype)(gradient, *settings)
            for value, right in zip(got, expected, strict=True):
                assert value.dtype == torch.float32
                torch.testing.assert_close(value.double(), right, rtol=1e-5, atol=1e-5)
            assert gradient.dtype == dtype
            epsilon = torch.finfo(dtype).eps
            torch.testing.assert_close(
                gradient.double(), expected_gradient, rtol=2 * epsilon, atol=max(1e-6, epsilon**2)
            )


def test_logits_stay_where_no_gradient_is_wanted() -> None:
    logits, targets, _ = rows_of_logits(300, torch.float32)
    before = logits.clone()
    objective, nats = loss_kernel("triton", torch.float32)(logits, targets, None, None, 0.0, False)
    torch.testing.assert_close(nats, torch.nn.functional.cross_entropy(before, targets, reduction="none"))
    assert torch.equal(objective, nats)
    assert torch.equal(logits, before)


@pytest.mark.parametrize("ruined", [float("nan"), float("inf")])
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # numpy, in the interpreter
def test_ruined_logits_show_in_their_loss_alone(ruined: float) -> None:
    """A row that bears no loss may hold anything; a row that does must not look healthy."""
    logits, targets, bears_loss = rows_of_logits(300, torch.float32)
    logits[2:4] = ruined  # the first of them bears no loss
    nats = loss_kernel("triton", torch.float32)(logits, targets, bears_loss, None, 0.0, True)[1]
    assert nats.isfinite().tolist() == [True, True, True, False, True, True, True]
    assert not logits[2].any()


def test_a_whole_head_takes_the_kernel_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpt_lightning.model.loss_kernels.why_triton_is_unavailable", lambda device: None)
    x, weight = (torch.randn(n, 16, device=DEVICE) for n in (40, 97))
    targets, mask = torch.arange(40, device=DEVICE), torch.arange(40, device=DEVICE) % 3 > 0
    gradients = []
    for name in ("torch", "triton"):
        ours = x.clone().requires_grad_(), weight.clone().requires_grad_()
        loss = cross_entropy_sum(*ours, targets, mask, soft_cap=15.0, z_loss=1e-3, kernel=name)
        loss.objective.backward()
        gradients.append([*loss, *(value.grad for value in ours)])
    for plain, other in zip(*gradients, strict=True):
        torch.testing.assert_close(other, plain, rtol=1e-5, atol=1e-5)


def test_a_kernel_that_cannot_run_is_refused_by_name() -> None:
    cpu = torch.device("cpu")
    with pytest.raises(
        ValueError, match=r"trainer\.loss_kernel is triton, but Triton is not available: the device is cpu"
    ):
        choose_loss_kernel("triton", cpu)
    with pytest.raises(ValueError, match=r"trainer\.loss_kernel is 'tritn': it must be one of torch, triton, auto"):
        choose_loss_kernel("tritn", cpu)
    assert choose_loss_kernel("auto", cpu)[0] == "torch"
    assert choose_loss_kernel("torch", cpu) == ("torch", "as configured")
