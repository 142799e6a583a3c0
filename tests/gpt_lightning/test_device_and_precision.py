"""Which device is taken, and which precision it gets."""

from typing import Any

import pytest
import torch

from gpt_lightning.device_and_precision import choose_device, choose_precision


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 5), "16-mixed"), ((8, 0), "bf16-mixed"), ((9, 0), "bf16-mixed")]
)
def test_a_gpu_goes_by_its_capability(monkeypatch: pytest.MonkeyPatch, capability: Any, expected: str) -> None:
    """A T4 (7.5) only emulates bf16."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    precision, why = choose_precision("auto", device="cuda")
    assert precision == expected
    assert f"{capability[0]}.{capability[1]}" in why


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({}, "32-true"),
        ({"avx512_f": True}, "32-true"),
        ({"avx512_bf16": True}, "bf16-mixed"),
        ({"amx_bf16": True}, "bf16-mixed"),
    ],
)
def test_a_cpu_goes_by_its_arithmetic(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert choose_precision("auto", device="cpu")[0] == expected


def test_what_is_asked_for_is_taken_or_refused() -> None:
    assert choose_precision("32-true", device="cuda") == ("32-true", "as configured")
    with pytest.raises(ValueError, match=r"trainer\.precision is 'fp8': it must be one of auto, 32-true"):
        choose_precision("fp8", device="cpu")


def test_cuda_is_taken_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert (choose_device("auto"), choose_device("cpu")) == ("cuda", "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == "cpu"
    with pytest.raises(ValueError, match="torch finds no CUDA device"):
        choose_device("cuda")
