"""Costs and forecasts, held against the models themselves, real files, measured memory and published figures."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import launch
from analysis.budget import (
    DEVICES,
    NUMBER_FORMATS,
    activation_bytes_per_token,
    checkpoint_bytes,
    chinchilla_loss,
    effective_tokens,
    find_device,
    flops_per_token,
    hours,
    n_parameters,
    parameter_shapes,
    peak_flops,
    peak_memory_bytes,
)
from benchmarks.__main__ import TRAINING
from benchmarks.tables import read_results
from gpt_lightning.model import GPT, GPTConfig
from gpt_lightning.model.attention_backends import ATTENTION_CHOICES
from gpt_lightning.model.feed_forward import FEED_FORWARDS
from gpt_lightning.model.norms import NORMS
from gpt_lightning.model.positions import POSITIONS
from train import train

SMALL = asdict(GPTConfig(vocab_size=64, max_seq_len=64, d_model=64, n_layers=2, n_heads=4, d_ff=256, eot_id=0))
MODERN = {"n_kv_heads": 2, "norm": "rmsnorm", "feed_forward": "relu2", "position": "rope", "qk_norm": True}


def shipped(model: str, tokenizer: str = "gpt2") -> dict[str, Any]:
    config: dict[str, Any] = launch.compose_config("train", [f"model={model}", f"tokenizer={tokenizer}"])["model"]
    return config


def shapes_of(model: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(p.shape) for name, p in GPT(GPTConfig(**{"eot_id": 0} | model)).named_parameters()}


@pytest.mark.parametrize("choice", launch.group_choices("model"))
def test_parameters_of_every_shipped_model_are_exact(choice: str) -> None:
    model = shipped(choice)
    assert parameter_shapes(model) == shapes_of(model)
    with torch.device("meta"):
        assert n_parameters(model) == GPT(GPTConfig(**model, eot_id=0)).n_parameters()


@settings(max_examples=40, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            **{size: st.integers(1, 20) for size in ("vocab_size", "max_seq_len", "n_layers", "d_ff")},
            **{switch: st.booleans() for switch in ("bias", "qk_norm", "tie_embeddings", "attend_across_documents")},
            "norm": st.sampled_from(sorted(NORMS)),
            "feed_forward": st.sampled_from(sorted(FEED_FORWARDS)),
            "position": st.sampled_from(sorted(POSITIONS)),
            "attention": st.sampled_from(sorted(ATTENTION_CHOICES)),
        }
    ),
    st.sampled_from([(4, None), (4, 4), (4, 2), (4, 1), (1, None), (3, 1)]),
    st.integers(1, 4),
)
def test_parameters_of_any_model_are_exact(
    options: dict[str, Any], heads: tuple[int, int | None], half_d_head: int
) -> None:
    sizes = {"d_model": 2 * half_d_head * heads[0], "n_heads": heads[0], "n_kv_heads": heads[1], "eot_id": 0}
    model = asdict(GPTConfig(**options, **sizes))
    assert parameter_shapes(model) == shapes_of(model)


def test_published_counts() -> None:
    assert n_parameters(shipped("gpt2_124m")) == 124_439_808
    assert n_parameters(shipped("gpt2_124m"), without=["positions.weight"]) == 124_439_808 - 1024 * 768
    assert n_parameters(shipped("gpt2_5_124m")) == 162_148_608
    assert n_parameters(shipped("gpt2_5_124m"), without=["embedding.weight"]) == 123_551_232


def test_flops_count_what_is_multiplied() -> None:
    attention = 12 * 12 * 768 * 1024
    assert flops_per_token(shipped("gpt2_124m")) == 6 * (124_439_808 - 1024 * 768) + attention
    assert flops_per_token(shipped("gpt2_5_124m")) == 6 * 123_551_232 + attention
    small = SMALL | {"position": "rope"}
    assert flops_per_token(small) == flops_per_token(small | {"n_kv_heads": 4})
    assert flops_per_token(small | {"tie_embeddings": False}) == flops_per_token(small)  # a second table is looked up


def test_published_speeds_give_their_mfu() -> None:
    """llm.c's and modded-nanogpt's tokens per second, and the MFU that they state for them."""
    model = shipped("gpt2_124m")
    for device, tokens_per_second, mfu in (("H100", 468e3, 0.41), ("H100", 453e3, 0.39), ("A100", 218e3, 0.60)):
        flops = flops_per_token(model) * tokens_per_second * 3600
        assert hours(flops, device, precision="bf16-mixed", mfu=mfu) == pytest.approx(1, rel=0.03)


def test_hours_follow_devices_and_share() -> None:
    one = hours(1e18, "H200", precision="bf16-mixed", mfu=0.4)
    assert one == pytest.approx(1e18 / (989e12 * 0.4) / 3600)
    assert hours(1e18, "H200", precision="bf16-true", mfu=0.2, n_devices=4) == pytest.approx(one / 2)
    assert hours(1e18, "H200", precision="32-true", mfu=0.4) > 10 * one


@pytest.mark.parametrize(
    ("name", "known"),
    [
        *((name, name) for name in DEVICES),
        ("NVIDIA H200", "H200"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA A100-SXM4-40GB", "A100"),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("Tesla V100-SXM2-32GB", "V100 32GB"),
        ("Tesla T4", "T4"),
        *((name, None) for name in ("NVIDIA H100 PCIe", "Tesla V100-PCIE-16GB", "NVIDIA H200 NVL", "NVIDIA L40", "")),
        *((name, None) for name in ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA GeForce RTX 4090 D")),
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
        hours(**{"flops": 1e18, "device": "H200", "precision": "bf16-mixed", "mfu": 0.4} | arguments)


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
    assert "beyond what the law was fitted on" in (chinchilla_loss(1_377_408, {"stdlib": (10e9, 1)}).note or "")
    assert "beyond what the law was fitted on" in (chinchilla_loss(124e6, {"stdlib": (1e6, 1)}).note or "")


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


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_checkpoints_are_as_large_as_foretold(
    tiny_config: Callable[..., dict[str, Any]], optimizer: str, precision: str, tmp_path: Path
) -> None:
    config = tiny_config(
        *(
            "name=weighed",
            f"optimizer={optimizer}",
            f"trainer.precision={precision}",
            "model.d_model=96",
            "max_steps=3",
        ),
        *("val_every=100", "callbacks.samples.every=100", "global_batch=2"),
    )
    train(config)
    written = (tmp_path / "runs" / "weighed" / "checkpoints" / "step_00000003.pt").stat().st_size
    name = config["optimizer"]["_target_"].split(".")[-1]
    assert checkpoint_bytes(config["model"], optimizer=name, precision=precision) == pytest.approx(written, rel=0.02)


@pytest.mark.parametrize("row", read_results("cpu")["training"]["rows"], ids=lambda row: row["row"])
def test_memory_is_near_what_was_measured(row: dict[str, Any]) -> None:
    name, precision = row["row"].rsplit(", ", 1)
    sizes = dict(TRAINING[name][0])
    micro_batch = sizes.pop("batch")
    model = asdict(GPTConfig(**sizes, d_ff=4 * sizes["d_model"]))
    foretold = peak_memory_bytes(
        model, micro_batch=micro_batch, optimizer="AdamW", precision=precision, device_type="cpu"
    )
    assert foretold / 1e6 == pytest.approx(row["ours"]["mb"], rel=0.15)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"norm": "rmsnorm"},
        {"feed_forward": "swiglu"},
        {"feed_forward": "relu2", "position": "rope"},
        {"n_kv_heads": 2, "bias": False},
        {"qk_norm": True},
        {"attend_across_documents": False},
        {"dropout": 0.1},
        {"attention": "manual"},
        {"attention": "manual", "dropout": 0.1, "position": "rope"},
        MODERN | {"attend_across_documents": False},
    ],
    ids=str,
)
def test_activations_are_what_torch_saves(options: dict[str, Any], precision: str) -> None:
    model = SMALL | options
    one, two = (
        activation_bytes_per_token(model | {"n_layers": n}, precision=precision, device_type="cpu") for n in (1, 2)
    )
    # two blocks less one, and a large batch less a small one: only what each token leaves in a block
    (a, b), (c, d) = (
        [saved_bytes(model | {"n_layers": n}, micro_batch=batch, precision=precision) for n in (1, 2)]
        for batch in (2, 4)
    )
    assert two - one == pytest.approx((d - c - b + a) / (2 * model["max_seq_len"]), rel=0.1)


@given(
    st.integers(1, 64), st.integers(1, 64), st.sampled_from(sorted(NUMBER_FORMATS)), st.sampled_from(["cpu", "cuda"])
)
def test_more_sequences_need_more_memory(one: int, other: int, precision: str, device_type: str) -> None:
    def memory(micro_batch: int, optimizer: str = "AdamW", n_devices: int = 1, **options: Any) -> int:
        return peak_memory_bytes(
            SMALL | options,
            micro_batch=micro_batch,
            optimizer=optimizer,
            precision=precision,
            device_type=device_type,
            n_devices=n_devices,
        )

    fewer, more = sorted((one, other))
    assert memory(fewer) <= memory(more) < memory(more, n_devices=2)
    assert memory(more, "AdamW8bit") < memory(more) < memory(more, attention="manual")


def test_large_pictures_of_memory() -> None:
    """GPT-2 124M on a GPU: 2 GB of states; the head never holds the logits of a batch, which would be 6.6 GB here."""
    sizes = {"optimizer": "AdamW", "precision": "bf16-mixed"}
    model = shipped("gpt2_124m") | {"dropout": 0.0}
    alone, batch = (peak_memory_bytes(model, micro_batch=n, **sizes) for n in (1, 32))
    assert 16 * 124_439_808 < alone < 3.5e9
    activations = activation_bytes_per_token(model, precision="bf16-mixed", device_type="cuda") * 1024
    assert 1 < (batch - alone) / (31 * activations) < 1.1  # and what passes, in the last block's backward pass
    compared = peak_memory_bytes(model | {"attention": "manual"}, micro_batch=32, **sizes)
    assert compared - batch > 32 * 12 * 12 * 1024**2 * 6  # T x T scores of every head, in fp32 and in bf16


@pytest.mark.parametrize("arguments", [{"optimizer": "Muon"}, {"precision": "auto"}])
def test_unknown_state_has_no_size(arguments: dict[str, str]) -> None:
    known = {"optimizer": "AdamW", "precision": "32-true"} | arguments
    with pytest.raises(ValueError, match="not known"):
        checkpoint_bytes(SMALL, **known)
    with pytest.raises(ValueError, match="not known"):
        peak_memory_bytes(SMALL, micro_batch=1, **known)


def saved_bytes(model: dict[str, Any], *, micro_batch: int, precision: str) -> int:
    """Bytes that torch keeps for the backward pass, each storage once, without the parameters."""
    torch.manual_seed(0)
    gpt = GPT(GPTConfig(**model)).to(torch.bfloat16 if precision == "bf16-true" else torch.float32)
    parameters = {p.untyped_storage().data_ptr() for p in gpt.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(x: torch.Tensor) -> torch.Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage()
        return x

    ids = torch.ones(micro_batch, model["max_seq_len"], dtype=torch.int64)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x),
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"),
    ):
        loss = gpt.loss(ids, ids)
    del loss
    return sum(storage.nbytes() for pointer, storage in kept.items() if pointer not in parameters)
