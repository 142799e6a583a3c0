"""Hours and forecasts, held against published figures."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.hours_and_loss_from_sizes import (
    DEVICES,
    chinchilla_loss,
    effective_tokens,
    find_device,
    peak_flops,
    training_hours,
)
from gpt_lightning.model.model_size import flops_per_token
from tests.planned_models import shipped_model


def test_published_speeds_give_their_mfu() -> None:
    """llm.c's and modded-nanogpt's tokens per second, and the MFU that they state for them."""
    for device, tokens_per_second, mfu in (("H100", 468e3, 0.41), ("H100", 453e3, 0.39), ("A100", 218e3, 0.60)):
        flops = flops_per_token(shipped_model("gpt2_124m")) * tokens_per_second * 3600
        assert training_hours(flops, device, precision="bf16-mixed", mfu=mfu) == pytest.approx(1, rel=0.03)


def test_hours_follow_devices_and_share() -> None:
    one = training_hours(1e18, "H200", precision="bf16-mixed", mfu=0.4)
    assert one == pytest.approx(1e18 / (989e12 * 0.4) / 3600)
    assert training_hours(1e18, "H200", precision="bf16-true", mfu=0.2, n_devices=4) == pytest.approx(one / 2)
    assert training_hours(1e18, "H200", precision="32-true", mfu=0.4) > 10 * one


@pytest.mark.parametrize(
    ("name", "known"),
    [
        *((name, name) for name in DEVICES),
        ("NVIDIA H200", "H200"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA A100-SXM4-40GB", "A100"),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB"),
        ("NVIDIA A100-PCIE-40GB", "A100 PCIe"),
        ("NVIDIA A100 80GB PCIe", "A100 80GB PCIe"),
        ("NVIDIA B200", "B200"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA GeForce RTX 5090", "RTX 5090"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("Tesla V100-SXM2-32GB", "V100 32GB"),
        ("Tesla T4", "T4"),
        *((name, None) for name in ("NVIDIA H100 PCIe", "Tesla V100-PCIE-16GB", "NVIDIA H200 NVL", "NVIDIA L40", "")),
        *((name, None) for name in ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA GeForce RTX 4090 D")),
        *((name, None) for name in ("NVIDIA GB200", "NVIDIA H100 NVL", "NVIDIA A100-PCIE-40GB MIG 1g.5gb")),
        *((name, None) for name in ("NVIDIA GeForce RTX 5090 D", "NVIDIA GeForce RTX 5090 Laptop GPU")),
    ],
)
def test_devices_go_by_torchs_names_and_are_never_guessed(name: str, known: str | None) -> None:
    assert find_device(name) is (DEVICES[known] if known else None)
    assert (peak_flops(name, "fp16") is None) == (known is None)


def test_only_what_computes_in_bf16_has_a_peak_in_it() -> None:
    without = {name for name in DEVICES if peak_flops(name) is None}
    assert without == {"T4", "V100", "V100 32GB"}
    assert all(device.fp32 < device.half for device in DEVICES.values())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"device": "H2OO"}, ", ".join(DEVICES)),
        ({"precision": "bf16"}, "32-true, bf16-mixed, 16-mixed, bf16-true"),
        ({"device": "T4"}, "precision=16-mixed"),
        ({"mfu": 40}, "mfu is 40"),
    ],
)
def test_what_has_no_hours(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        training_hours(**{"flops": 1e18, "device": "H200", "precision": "bf16-mixed", "mfu": 0.4} | arguments)


def test_published_losses_lie_in_the_forecast() -> None:
    """On FineWeb, AdamW: llm.c's 124M at 10 B tokens, the same with RoPE and a tuned rate at 5 B, GPT-2.5 at 10.5 B."""
    llm_c = chinchilla_loss(124_439_808, {"fineweb": (10e9, 1)})
    assert llm_c.loss == pytest.approx(3.272, abs=0.003)
    for forecast, measured in (
        (llm_c, 3.28),
        (chinchilla_loss(124_439_808, {"fineweb": (5e9, 1)}), 3.28),
        (chinchilla_loss(162_148_608, {"fineweb": (10.5e9, 1)}), 3.304),
    ):
        assert forecast.low + 0.1 < measured < forecast.high - 0.1
        assert forecast.note is None


def test_a_forecast_outside_of_the_fit_says_so() -> None:
    assert "outside the range of the law's fit" in (chinchilla_loss(1_377_408, {"stdlib": (10e9, 1)}).note or "")
    assert "outside the range of the law's fit" in (chinchilla_loss(124e6, {"stdlib": (1e6, 1)}).note or "")


COUNTS = st.floats(1e3, 1e13)
EPOCHS = st.floats(0.01, 200)


@given(COUNTS, EPOCHS, EPOCHS)
def test_repeats_help_less_than_fresh_tokens_but_never_harm(unique: float, one: float, other: float) -> None:
    fewer, more = sorted((one, other))
    assert effective_tokens(unique, fewer) <= effective_tokens(unique, more) * (1 + 1e-12)
    assert effective_tokens(unique, more) <= unique * min(more, 16.4) * (1 + 1e-12)
    assert effective_tokens(unique, min(more, 1)) == pytest.approx(unique * min(more, 1))  # the tokens drawn


def test_four_epochs_cost_next_to_nothing() -> None:
    """As the paper says of its fit; and forty are worth far less than forty fresh ones."""
    assert 0.9 < effective_tokens(1e9, 4) / 4e9 < 1
    assert effective_tokens(1e9, 40) / 40e9 < 0.4


@given(COUNTS, COUNTS, EPOCHS, st.floats(1.0, 100))
def test_more_of_anything_never_raises_the_loss(n: float, unique: float, epochs: float, factor: float) -> None:
    base = chinchilla_loss(n, {"a": (unique, epochs)})
    assert base.low < base.loss < base.high
    for better in (
        chinchilla_loss(n * factor, {"a": (unique, epochs)}),
        chinchilla_loss(n, {"a": (unique * factor, epochs)}),
        chinchilla_loss(n, {"a": (unique, epochs * factor)}),
        chinchilla_loss(n, {"a": (unique, epochs), "b": (unique, 0)}),
        chinchilla_loss(n, {"a": (unique * max(epochs, 1), min(epochs, 1))}),  # fresh tokens for repeats
    ):
        assert better.loss <= base.loss + 1e-9


@pytest.mark.parametrize("arguments", [(0, {"a": (1e9, 1)}), (1e8, {}), (1e8, {"a": (-1, 1)}), (1e8, {"a": (1, -1)})])
def test_no_loss_of_nothing(arguments: tuple[float, dict[str, tuple[float, float]]]) -> None:
    with pytest.raises(ValueError, match=r"parameters|epochs"):
        chinchilla_loss(*arguments)
