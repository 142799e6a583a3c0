"""Layer norm: its gradients are right in each dtype."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gpt_lightning.model.norms import EPS
from gpt_lightning.model.part_registry import NORMS


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


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2**-8)])
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
