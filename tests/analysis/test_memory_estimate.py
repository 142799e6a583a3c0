"""Checkpoints and memory: as torch writes and keeps them, and as the benchmarks measured them."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from analysis.compute_estimate import NUMBER_FORMATS
from analysis.memory_estimate import (
    activation_bytes_per_token,
    checkpoint_bytes,
    peak_memory_bytes,
)
from benchmarks.__main__ import TRAINING
from benchmarks.tables import read_results
from gpt_lightning.model import GPT, GPTConfig
from running.commands.train import train
from running.config.compose import group_choices
from tests.analysis.test_compute_estimate import SMALL, shipped

NULL_GPU = read_results("null_gpu")["rows"]
MODERN = {"n_kv_heads": 2, "norm": "rmsnorm", "feed_forward": "relu2", "position": "rope", "qk_norm": True}


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit", "muon"])
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
    assert memory(more, "AdamW8bit") < memory(more, "MuonAdamW") < memory(more) < memory(more, attention="manual")


def test_sharded_states_grow_smaller_with_the_ranks() -> None:
    """Down to what is gathered at a time, of GPT-2 1558M much less than what every rank holds without."""
    sizes: dict[str, Any] = {"micro_batch": 1, "optimizer": "AdamW", "precision": "32-true"}
    model = shipped("gpt2_1558m")
    one, *several = (peak_memory_bytes(model, **sizes, n_devices=n, sharded=True) for n in (1, 2, 4, 64))
    assert one == peak_memory_bytes(model, **sizes) > several[0] > several[1] > several[2]
    whole = 16 * 1_557_611_200
    assert one - several[0] == pytest.approx(0.45 * whole, rel=0.02)
    assert one - several[2] == pytest.approx(0.93 * whole, rel=0.02)
    # in bf16-mixed also without autocast's copies of the blocks, which are gathered in bf16 instead
    one, many = (
        peak_memory_bytes(model, **sizes | {"precision": "bf16-mixed"}, n_devices=n, sharded=True) for n in (1, 64)
    )
    assert one - many == pytest.approx(whole * 63 / 64 + 2 * 0.947 * whole / 16 - (0.66e9 + 0.25e9), rel=0.01)


def test_large_pictures_of_memory() -> None:
    """GPT-2 124M on a GPU: 2 GB of states; the head never holds the logits of a batch, which would be 6.6 GB here."""
    sizes = {"optimizer": "AdamW", "precision": "bf16-mixed"}
    model = shipped("gpt2_124m") | {"dropout": 0.0}
    alone, batch = (peak_memory_bytes(model, micro_batch=n, **sizes) for n in (1, 32))
    assert 16 * 124_439_808 < alone < 3.5e9
    activations = activation_bytes_per_token(model, precision="bf16-mixed", device_type="cuda") * 1024
    assert 1 < (batch - alone) / (31 * activations) < 1.1  # and what passes, in the last block's backward pass
    compared = peak_memory_bytes(model | {"attention": "manual"}, micro_batch=32, **sizes)
    # T x T scores of every head, in fp32 and in bf16, and in one block their gradients
    assert compared - batch == pytest.approx(32 * 12 * (12 + 1) * 1024**2 * 6, rel=0.02)


@pytest.mark.parametrize("row", [row for row in NULL_GPU if "bytes" in row], ids=lambda row: row["what"])
def test_memory_on_cuda_is_what_torch_allocated(row: dict[str, Any]) -> None:
    """As counted without a GPU, for every shipped model; plain, compiled and recomputed."""
    foretold = peak_memory_bytes(
        shipped(row["model"], "bpe_4096" if "micro" in row["model"] else "gpt2"),
        micro_batch=row["micro_batch"],
        optimizer="AdamW",
        precision="bf16-mixed",
        **row["settings"],
    )
    assert foretold == pytest.approx(row["bytes"], rel=0.05)


def test_every_shipped_model_was_counted() -> None:
    models = group_choices("model")
    assert {row["model"] for row in NULL_GPU if "bytes" in row} == set(models)
    assert {row["what"] for row in NULL_GPU if "graph breaks" in row["what"]} == {f"graph breaks, {m}" for m in models}


def test_no_figure_is_above_its_limit() -> None:
    """Launches, waiting and copies as they were last counted."""
    assert [row["what"] for row in NULL_GPU if row["limit"] is not None and row["figure"] > row["limit"]] == []


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
