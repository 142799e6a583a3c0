"""Parameters and FLOPs of the model on the meta device, held against the real model and published figures."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from gpt_lightning.model import GPT
from gpt_lightning.model.model_size import build_meta_model, flops_per_token
from gpt_lightning.model.part_registry import FEED_FORWARDS, NORMS, POSITIONS
from running.config.compose import group_choices
from tests.planned_models import SMALL, shipped_config, shipped_model, small_config, small_model

ATTENTION = 12 * 2 * 64 * 64  # of the small model


class GatedFeedForward(nn.Module):
    """One matrix more than the GELU feed-forward, and none of them a linear layer."""

    def __init__(self, d_model: int, d_ff: int, *, bias: bool) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.empty(d_model, d_ff))
        self.gate = nn.Parameter(torch.empty(d_model, d_ff))
        self.out = nn.Parameter(torch.empty(d_ff, d_model))

    def forward(self, x: Tensor) -> Tensor:
        return (torch.sigmoid(x @ self.gate) * (x @ self.up)) @ self.out


class TwoTables(nn.Module):
    """Positions that are looked up in two tables, one of them a bare parameter, and pass through a linear layer."""

    def __init__(self, *, max_seq_len: int, d_model: int, d_head: int) -> None:
        super().__init__()
        self.fine = nn.Embedding(max_seq_len, d_model)
        self.coarse = nn.Parameter(torch.empty(max_seq_len, d_model))
        self.mix = nn.Linear(d_model, d_model, bias=False)

    def embed(self, x: Tensor, at: slice) -> Tensor:
        return x + self.mix(self.fine.weight[at] + self.coarse[at])

    def rotation(self, at: slice) -> None: ...


@pytest.mark.parametrize("name", group_choices("model"))
def test_the_meta_model_has_the_parameters_of_the_real_one(name: str) -> None:
    """Of large models with two layers, so that the test needs little memory."""
    config = shipped_config(name, n_layers=2, vocab_size=512)
    real, meta = GPT(config), build_meta_model(config)
    assert meta.n_parameters() == real.n_parameters() == sum(p.numel() for p in real.parameters())
    shapes = [[(name, p.shape) for name, p in model.named_parameters()] for model in (real, meta)]
    assert shapes[0] == shapes[1]
    assert all(parameter.is_meta for parameter in meta.parameters())
    blocks = [sum(p.numel() for p in model.blocks.parameters()) for model in (meta, shipped_model(name))]
    assert blocks[1] * 2 == blocks[0] * shipped_config(name).n_layers


def test_published_counts() -> None:
    assert shipped_model("gpt2_124m").n_parameters() == 124_439_808
    assert shipped_model("gpt2_5_124m").n_parameters() == 162_148_608


def test_flops_count_what_is_multiplied() -> None:
    attention = 12 * 12 * 768 * 1024
    assert flops_per_token(shipped_model("gpt2_124m")) == 6 * (124_439_808 - 1024 * 768) + attention
    assert flops_per_token(shipped_model("gpt2_5_124m")) == 6 * 123_551_232 + attention
    flops = flops_per_token(small_model(position="rope"))
    assert flops == flops_per_token(small_model(position="rope", n_kv_heads=4))
    assert flops == flops_per_token(small_model(position="rope", tie_embeddings=False))  # a second table is looked up
    assert flops == flops_per_token(small_model()) == flops_per_token(GPT(small_config()))


def test_a_feed_forward_of_the_users_own_counts_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FEED_FORWARDS, "gated", GatedFeedForward)
    config = small_config(feed_forward="gated", bias=False)
    meta, gelu = build_meta_model(config), small_model(bias=False)
    extra = 2 * 64 * 256  # the gate, in two layers
    assert meta.n_parameters() == GPT(config).n_parameters() == gelu.n_parameters() + extra
    assert flops_per_token(meta) == flops_per_token(gelu) + 6 * extra


def test_a_norm_of_the_users_own_counts_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five norms without the gains of 64 numbers."""
    monkeypatch.setitem(NORMS, "plain", lambda width, *, bias: nn.LayerNorm(width, elementwise_affine=False))
    plain, usual = small_model(norm="plain"), small_model(norm="rmsnorm")
    assert usual.n_parameters() - plain.n_parameters() == 5 * 64
    assert flops_per_token(usual) - flops_per_token(plain) == 6 * 5 * 64


def test_tables_of_positions_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(POSITIONS, "two_tables", TwoTables)  # type: ignore[arg-type]
    model, rope = small_model(position="two_tables"), small_model(position="rope")
    assert model.n_parameters() - rope.n_parameters() == 2 * 64 * 64 + 64 * 64
    assert flops_per_token(model) - flops_per_token(rope) == 6 * 64 * 64  # those of the linear layer


@pytest.mark.parametrize("options", [{}, {"bias": False, "tie_embeddings": False}, {"feed_forward": "swiglu"}], ids=str)
def test_flops_are_those_of_the_matrix_products(options: dict[str, Any]) -> None:
    """As torch counts them, in a forward pass; but for biases and gains, which count as if they were products."""
    model = GPT(small_config(**options, attention="manual", norm="rmsnorm"))
    ids = torch.zeros(1, SMALL["max_seq_len"], dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        model(ids)
    vectors = sum(p.numel() for p in model.parameters() if p.dim() == 1)
    assert flops_per_token(model) == 3 * counter.get_total_flops() / SMALL["max_seq_len"] + 6 * vectors
