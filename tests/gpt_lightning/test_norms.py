"""Layer norm: its gradients are right, and on a CPU the same with any number of threads."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gpt_lightning.model import GPT, GPTConfig
from gpt_lightning.model.norms import EPS, NORMS
from tests.conftest import ROOT

_GPT2 = GPTConfig(
    vocab_size=512,
    max_seq_len=96,
    d_model=80,
    n_layers=2,
    n_heads=4,
    d_ff=320,
    bias=True,
    norm="layernorm",
    dropout=0.1,
)
_PROGRAM = "from tests.gpt_lightning.test_norms import assert_threads_do_not_matter as check; check('32-true')"


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def gradients(norm: torch.nn.Module, x: Tensor, grad: Tensor) -> list[Tensor]:
    """Of the output's product with `grad`: the output, then the gradients of the input and of each parameter."""
    x = x.detach().requires_grad_()
    y = norm(x)
    return [y.detach(), *torch.autograd.grad(y, [x, *norm.parameters()], grad)]


@pytest.mark.parametrize("bias", [True, False])
def test_gradients_are_derivatives(bias: bool) -> None:
    norm = NORMS["layernorm"](6, bias=bias).double()
    x = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)

    def of_parameters(x: Tensor, *parameters: Tensor) -> Tensor:
        names = [name for name, _ in norm.named_parameters()]
        return torch.func.functional_call(norm, dict(zip(names, parameters, strict=True)), x)

    start = [torch.randn_like(p, requires_grad=True) for p in norm.parameters()]
    assert torch.autograd.gradcheck(of_parameters, (x, *start))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2**-8)])
def test_gradients_are_those_of_fp64(dtype: torch.dtype, tolerance: float) -> None:
    """Over so many rows torch's own sums in bf16 are off by tens of percent."""
    norm = NORMS["layernorm"](48, bias=True).to(dtype)
    x, grad = torch.randn(4096, 48).to(dtype), (torch.randn(4096, 48) + 0.5).to(dtype)
    exact = torch.nn.LayerNorm(48, eps=EPS, dtype=torch.float64)
    for ours, oracle in zip(gradients(norm, x, grad), gradients(exact, x.double(), grad.double()), strict=True):
        assert ours.dtype == dtype
        assert (ours.double() - oracle).norm() <= tolerance * oracle.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_forward_is_torchs_with_and_without_gradients(dtype: torch.dtype) -> None:
    norm, x = NORMS["layernorm"](48, bias=True).to(dtype), torch.randn(3, 7, 48).to(dtype)
    torchs = F.layer_norm(x, (48,), norm.weight, norm.bias, EPS)
    with torch.no_grad():
        assert torch.equal(norm(x), torchs)
    assert torch.equal(norm(x), torchs)


@pytest.mark.parametrize("shape", [(4096, 48), (5, 1000), (1, 3), (333, 17)])
def test_sums_do_not_depend_on_the_number_of_threads(shape: tuple[int, int]) -> None:
    norm, x, grad = NORMS["layernorm"](shape[1], bias=True), torch.randn(shape), torch.randn(shape)
    results = []
    for threads in (1, 2, 3, 4):
        torch.set_num_threads(threads)
        results.append(gradients(norm, x, grad))
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


def assert_threads_do_not_matter(precision: str) -> None:
    """A whole step of GPT-2 gives the same bits with 1, 2, 3 and 4 threads."""
    torch.manual_seed(0)
    model = GPT(_GPT2)
    model = model.bfloat16() if precision == "bf16-true" else model
    ids = torch.randint(0, _GPT2.vocab_size, (9, _GPT2.max_seq_len + 1))
    casts = torch.autocast("cpu", dtype=torch.bfloat16) if precision == "bf16-mixed" else nullcontext()
    results = []
    for threads in (1, 2, 3, 4):
        torch.set_num_threads(threads)
        torch.manual_seed(1)  # of dropout
        with casts:
            objective = model.loss_sum(ids[:, :-1], ids[:, 1:]).objective
        results.append([objective, *torch.autograd.grad(objective, list(model.parameters()))])
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other)), precision


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_a_step_does_not_depend_on_the_number_of_threads(precision: str) -> None:
    assert_threads_do_not_matter(precision)


@pytest.mark.skipif(
    sys.platform != "linux" or "GenuineIntel" not in Path("/proc/cpuinfo").read_text(),
    reason="MKL_CBWR is for Intel's CPUs",
)
def test_nor_does_one_in_fp32_where_mkl_is_told() -> None:
    """Of all that a step does, only MKL's products depend on it, and only until MKL_CBWR says otherwise."""
    told = os.environ | {"MKL_CBWR": "AVX2,STRICT", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", _PROGRAM], env=told, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
