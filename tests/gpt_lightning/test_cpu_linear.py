"""The faster products give what torch's own gives."""

import pytest
import torch
import torch.nn.functional as F

from gpt_lightning.model import cpu_linear


@pytest.mark.parametrize("is_amd", [False, True])
@pytest.mark.parametrize("shape", [(1,), (1, 1), (3,), (2, 4), (40,)], ids=str)
@pytest.mark.parametrize("d_out", [64, 51])
@pytest.mark.parametrize("with_bias", [False, True])
def test_products_equal_torchs(
    is_amd: bool, shape: tuple[int, ...], d_out: int, with_bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_linear, "SMALL", 0)
    monkeypatch.setattr(cpu_linear, "_is_amd", lambda: is_amd)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(*shape, 32, generator=generator), torch.randn(d_out, 32, generator=generator)
    bias = torch.randn(d_out, generator=generator) if with_bias else None
    with torch.no_grad():
        torch.testing.assert_close(cpu_linear.fast_linear(x, weight, bias), F.linear(x, weight, bias))
