"""Checkpoints and memory: as torch writes and keeps them, and as the benchmarks measured them."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from analysis.hours_and_loss_from_sizes import NUMBER_FORMATS
from benchmarks.__main__ import TRAINING
from benchmarks.tables import read_results
from gpt_lightning.model import GPT, GPTConfig
from gpt_lightning.model.attention_backends import Backend, BackendTraits
from gpt_lightning.model.attention_mask import AttentionMask
from gpt_lightning.model.model_size import build_meta_model
from gpt_lightning.model.part_registry import BACKENDS, FEED_FORWARDS, NORMS
from gpt_lightning.optim import MuonAdamW
from gpt_lightning.optim.optimizer_traits import ADAMW, ADAMW_8BIT, OptimizerTraits
from running import registration
from running.commands.train import train
from running.config.compose import group_choices
from running.config.run_config import RunConfig
from running.training.activation_memory import Arithmetic, activation_bytes_per_token, activations_per_token
from running.training.cost_estimate import planned_model, planned_optimizer
from running.training.memory_estimate import TrainingSetup, checkpoint_bytes, peak_memory_bytes
from tests.conftest import ROOT
from tests.planned_models import shipped_model, small_config, small_model

NULL_GPU = read_results("null_gpu")["rows"]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"```py\n# (\w+)\.py\n(.*?)```", PAGE, re.DOTALL))
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
        *("val_every=100", "callbacks.samples.every=100", "global_batch=2", "micro_batch=2"),
    )
    train(config)
    written = (tmp_path / "runs" / "weighed" / "checkpoints" / "step_00000003.pt").stat().st_size
    run = RunConfig.of(config)
    foretold = checkpoint_bytes(planned_model(run), planned_optimizer(run), precision=precision)
    assert foretold == pytest.approx(written, rel=0.02)


@pytest.mark.parametrize("row", read_results("cpu")["training"]["rows"], ids=lambda row: row["row"])
def test_memory_is_near_what_was_measured(row: dict[str, Any]) -> None:
    name, precision = row["row"].rsplit(", ", 1)
    sizes = dict(TRAINING[name][0])
    micro_batch = sizes.pop("batch")
    model = build_meta_model(GPTConfig(**sizes, d_ff=4 * sizes["d_model"]))
    setup = TrainingSetup(micro_batch=micro_batch, precision=precision, device_type="cpu")
    foretold = peak_memory_bytes(model, ADAMW, setup)
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
        {"qk_norm": True, "position": "rope", "attend_across_documents": False},
        {"attention": "manual"},
        {"attention": "manual", "dropout": 0.1, "position": "rope"},
        MODERN | {"attend_across_documents": False},
    ],
    ids=str,
)
def test_activations_are_what_torch_saves(options: dict[str, Any], precision: str) -> None:
    assert_activations_are_what_torch_saves(options, precision, rel=0.1)


class GatedFeedForward(nn.Module):
    """A feed-forward of the user's own, with a matrix more."""

    def __init__(self, d_model: int, d_ff: int, *, bias: bool) -> None:
        super().__init__()
        self.up = nn.Linear(d_model, d_ff, bias=bias)
        self.gate = nn.Linear(d_model, d_ff, bias=bias)
        self.out = nn.Linear(d_ff, d_model, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.sigmoid(self.gate(x)) * self.up(x))


class WrittenOutNorm(nn.Module):
    """A norm of the user's own, in three operations."""

    def __init__(self, width: int, *, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * (x.square().mean(dim=-1, keepdim=True) + 1e-5).rsqrt() * self.weight


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_activations_of_parts_of_the_users_own_are_what_torch_saves(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FEED_FORWARDS, "gated", GatedFeedForward)
    monkeypatch.setitem(NORMS, "written_out", WrittenOutNorm)
    assert_activations_are_what_torch_saves({"feed_forward": "gated"}, precision, rel=0.05)
    assert_activations_are_what_torch_saves({"norm": "written_out"}, precision, rel=0.1)


def test_a_feed_forward_of_the_users_own_is_planned_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its matrix more in weights, gradients and moments, and what it keeps of each token."""
    monkeypatch.setitem(FEED_FORWARDS, "gated", GatedFeedForward)
    sizes: dict[str, Any] = {"d_model": 256, "d_ff": 1024, "n_layers": 8, "vocab_size": 8192, "bias": False}
    gated, gelu = small_model(**sizes, feed_forward="gated"), small_model(**sizes)
    setup = TrainingSetup(micro_batch=64, precision="32-true")
    matrix = 8 * 256 * 1024
    for optimizer, moments in ((ADAMW, 2), (MuonAdamW.traits, 1)):
        more = peak_memory_bytes(gated, optimizer, setup) - peak_memory_bytes(gelu, optimizer, setup)
        # the sigmoid, up and their product, where GELU keeps what goes in and what comes out
        assert more == (2 + moments) * 4 * matrix + 64 * 64 * 8 * 4 * 1024
        checkpoints = [checkpoint_bytes(model, optimizer, precision="32-true") for model in (gelu, gated)]
        assert checkpoints[1] - checkpoints[0] == pytest.approx((1 + moments) * 4 * matrix, rel=1e-3)


def own_backend(module: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the attention backend of a module of docs/extending.md, for one test."""
    registered: dict[str, Backend] = {}
    monkeypatch.setattr(registration, "register_attention_backend", registered.__setitem__)
    exec(EXAMPLES[module], {})
    monkeypatch.setitem(BACKENDS, name, registered[name])


def test_the_documented_backend_is_planned_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps the T x T scores of `manual`, and the output of the tanh besides."""
    own_backend("my_attention", "soft_cap", monkeypatch)
    for precision, device_type, number in (("32-true", "cpu", 4), ("bf16-true", "cuda", 2), ("bf16-mixed", "cuda", 2)):
        own, manual = (
            activations_per_token(
                shipped_model("gpt2_124m", dropout=0.0, attention=name), Arithmetic(precision, device_type)
            ).attention.kept
            for name in ("soft_cap", "manual")
        )
        assert own - manual == pytest.approx(number * 12 * 1024, rel=0.15)
    for precision in ("32-true", "bf16-mixed", "bf16-true"):
        assert_activations_are_what_torch_saves({"attention": "soft_cap"}, precision, rel=0.1)


def windowed(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, dropout: float) -> Tensor:
    """Attention to 8 tokens, with torch's kernel."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    mask = mask & ~torch.ones_like(mask).tril(-8)
    return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout).transpose(1, 2)


def on_cuda_alone(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, dropout: float) -> Tensor:
    raise RuntimeError("no kernel for this device.")


def test_a_backend_with_a_fused_kernel_keeps_no_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it calls torch's kernel, or declares its own, which need not run on the meta device."""
    monkeypatch.setitem(BACKENDS, "windowed", Backend(AttentionMask.mask, windowed))
    monkeypatch.setitem(BACKENDS, "own_kernel", Backend(AttentionMask.mask, on_cuda_alone, BackendTraits(fused=True)))
    monkeypatch.setitem(BACKENDS, "undeclared", Backend(AttentionMask.mask, on_cuda_alone))
    for precision, device_type in (("32-true", "cpu"), ("bf16-mixed", "cuda")):
        arithmetic = Arithmetic(precision, device_type)
        kept = {
            name: activations_per_token(small_model(attention=name), arithmetic).attention.kept
            for name in ("sdpa", "windowed", "own_kernel")
        }
        assert len(set(kept.values())) == 1, kept
    with pytest.raises(
        ValueError, match=r"the memory of model\.attention=undeclared is unknown.*\(no kernel for this device\)\. If it"
    ):
        activations_per_token(small_model(attention="undeclared"), arithmetic)


def test_a_compiled_feed_forward_keeps_what_goes_through_products() -> None:
    setup = TrainingSetup(micro_batch=8, precision="bf16-mixed", compiled=True)
    for name, kept in (("gelu", 2), ("relu2", 2), ("swiglu", 3)):
        memory = activations_per_token(small_model(feed_forward=name), setup.arithmetic).feed_forward
        assert memory.kept_compiled == kept * 2 * 256


@settings(max_examples=20)
@given(
    st.integers(1, 64), st.integers(1, 64), st.sampled_from(sorted(NUMBER_FORMATS)), st.sampled_from(["cpu", "cuda"])
)
def test_more_sequences_need_more_memory(one: int, other: int, precision: str, device_type: str) -> None:
    def memory(micro_batch: int, optimizer: OptimizerTraits = ADAMW, n_devices: int = 1, **options: Any) -> int:
        setup = TrainingSetup(
            micro_batch=micro_batch, precision=precision, device_type=device_type, n_devices=n_devices
        )
        return peak_memory_bytes(small_model(**options), optimizer, setup)

    fewer, more = sorted((one, other))
    assert memory(fewer) <= memory(more) < memory(more, n_devices=2)
    assert memory(more, ADAMW_8BIT) < memory(more, MuonAdamW.traits) < memory(more) < memory(more, attention="manual")


def test_sharded_states_grow_smaller_with_the_ranks() -> None:
    """Down to what is gathered at a time, of GPT-2 1558M much less than what every rank holds without."""
    model = shipped_model("gpt2_1558m")

    def memory(n_devices: int, precision: str = "32-true") -> int:
        setup = TrainingSetup(micro_batch=1, precision=precision, n_devices=n_devices, sharded=True)
        return peak_memory_bytes(model, ADAMW, setup)

    one, *several = (memory(n) for n in (1, 2, 4, 64))
    alone = peak_memory_bytes(model, ADAMW, TrainingSetup(micro_batch=1, precision="32-true"))
    assert one == alone > several[0] > several[1] > several[2]
    whole = 16 * 1_557_611_200
    assert one - several[0] == pytest.approx(0.45 * whole, rel=0.02)
    assert one - several[2] == pytest.approx(0.93 * whole, rel=0.02)
    # in bf16-mixed also without autocast's copies of the blocks, which are gathered in bf16 instead
    one, many = (memory(n, "bf16-mixed") for n in (1, 64))
    assert one - many == pytest.approx(whole * 63 / 64 + 2 * 0.947 * whole / 16 - (0.66e9 + 0.25e9), rel=0.01)


def test_large_pictures_of_memory() -> None:
    """GPT-2 124M on a GPU: 2 GB of states; the head never holds the logits of a batch, which would be 6.6 GB here."""
    setups = [TrainingSetup(micro_batch=n, precision="bf16-mixed") for n in (1, 32)]
    model, manual = (shipped_model("gpt2_124m", dropout=0.0, **more) for more in ({}, {"attention": "manual"}))
    alone, batch = (peak_memory_bytes(model, ADAMW, setup) for setup in setups)
    assert 16 * 124_439_808 < alone < 3.5e9
    activations = activation_bytes_per_token(model, Arithmetic("bf16-mixed", "cuda")) * 1024
    assert 1 < (batch - alone) / (31 * activations) < 1.1  # and what passes, in the last block's backward pass
    compared = peak_memory_bytes(manual, ADAMW, setups[1])
    # T x T scores of every head, in fp32 and in bf16, and in one block their gradients, less what is free by then
    assert compared - batch == pytest.approx(32 * 12 * (12 + 1) * 1024**2 * 6, rel=0.05)


@pytest.mark.parametrize("row", [row for row in NULL_GPU if "bytes" in row], ids=lambda row: row["what"])
def test_memory_on_cuda_is_what_torch_allocated(row: dict[str, Any]) -> None:
    """As counted without a GPU, for every shipped model; plain, compiled and recomputed."""
    model = shipped_model(row["model"], "bpe_4096" if "micro" in row["model"] else "gpt2")
    setup = TrainingSetup(micro_batch=row["micro_batch"], precision="bf16-mixed", **row["settings"])
    foretold = peak_memory_bytes(model, ADAMW, setup)
    assert foretold == pytest.approx(row["bytes"], rel=0.05)


def test_every_shipped_model_was_counted() -> None:
    models = group_choices("model")
    assert {row["model"] for row in NULL_GPU if "bytes" in row} == set(models)
    assert {row["what"] for row in NULL_GPU if "graph breaks" in row["what"]} == {f"graph breaks, {m}" for m in models}


def test_no_figure_is_above_its_limit() -> None:
    """Launches, waiting and copies as they were last counted."""
    assert [row["what"] for row in NULL_GPU if row["limit"] is not None and row["figure"] > row["limit"]] == []


def test_an_unknown_precision_has_no_size() -> None:
    with pytest.raises(ValueError, match="precision auto is not known"):
        checkpoint_bytes(small_model(), ADAMW, precision="auto")
    with pytest.raises(ValueError, match="precision auto is not known"):
        TrainingSetup(micro_batch=1, precision="auto")


def assert_activations_are_what_torch_saves(options: dict[str, Any], precision: str, *, rel: float) -> None:
    """Two blocks less one, and a large batch less a small one: only what each token leaves in a block."""
    configs = [small_config(**options, n_layers=n) for n in (1, 2)]
    one, two = (activation_bytes_per_token(build_meta_model(c), Arithmetic(precision, "cpu")) for c in configs)
    (a, b), (c, d) = (
        [saved_bytes(config, micro_batch=batch, precision=precision) for config in configs] for batch in (2, 4)
    )
    assert two - one == pytest.approx((d - c - b + a) / (2 * configs[0].max_seq_len), rel=rel)


def saved_bytes(config: GPTConfig, *, micro_batch: int, precision: str) -> int:
    """Bytes that torch keeps for the backward pass, each storage once, without the parameters."""
    torch.manual_seed(0)
    gpt = GPT(config).to(torch.bfloat16 if precision == "bf16-true" else torch.float32)
    parameters = {p.untyped_storage().data_ptr() for p in gpt.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(x: torch.Tensor) -> torch.Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage()
        return x

    ids = torch.ones(micro_batch, config.max_seq_len, dtype=torch.int64)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x),
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"),
    ):
        loss = gpt.loss(ids, ids)
    del loss
    return sum(storage.nbytes() for pointer, storage in kept.items() if pointer not in parameters)
