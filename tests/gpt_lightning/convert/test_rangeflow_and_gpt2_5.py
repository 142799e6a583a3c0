"""Checkpoints of RangeFlow-GPT and GPT-2.5 against those models written from their descriptions."""

from pathlib import Path

import pytest
import torch

from gpt_lightning.convert import (
    from_gpt2_5,
    from_rangeflow,
)
from tests.gpt_lightning.convert.foreign_models import GPT25, RangeFlow
from tests.gpt_lightning.convert.oracles import foreign, same
from tests.gpt_lightning.tiny_models import LLAMA, build


@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
@pytest.mark.parametrize("config", [None, {"n_heads": 4}, {"num_heads": 4}])
def test_rangeflow_says_the_same_here(tmp_path: Path, prefix: str, config: dict[str, int] | None) -> None:
    theirs = foreign(RangeFlow, n_heads=4 if config else 2)
    state = {prefix + key: value for key, value in theirs.state_dict().items()}
    content = {"step": 700, "loss": 3.2, "optimizer_state_dict": {"state": {}}, "scaler_state_dict": {}}
    torch.save(content | {"config": config, "model_state_dict": state}, tmp_path / "checkpoint_step_700.pt")
    ours = from_rangeflow(tmp_path / "checkpoint_step_700.pt")
    assert same(ours, theirs)
    assert ours.config.residual_init == "plain"
    assert ours.config.dropout == 0.1
    assert ours.head.weight is ours.embedding.weight
    assert not ours.training


@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
def test_gpt2_5_says_the_same_here(tmp_path: Path, prefix: str) -> None:
    theirs = foreign(GPT25)
    state = {prefix + key: value for key, value in theirs.state_dict().items()}
    torch.save({"model_state": state, "optimizer_state": {}, "iteration_state": {"step": 3}}, tmp_path / "gpt2_5.pt")
    ours = from_gpt2_5(tmp_path / "gpt2_5.pt")
    assert same(ours, theirs)
    assert (ours.config.n_heads, ours.config.max_seq_len, ours.config.tie_embeddings) == (2, 16, False)
    assert ours.state_dict().keys() == build(**LLAMA).state_dict().keys()


def test_gpt2_5_rows_change_places_and_no_bit(tmp_path: Path) -> None:
    theirs = foreign(GPT25).bfloat16().state_dict()
    torch.save({"model_state": theirs}, tmp_path / "gpt2_5.pt")
    ours = from_gpt2_5(tmp_path / "gpt2_5.pt").state_dict()["blocks.1.attention.qkv.weight"]
    even_then_odd = [*range(0, 64, 2), *range(1, 64, 2)]
    rows = torch.tensor([head * 64 + row for head in range(2) for row in even_then_odd])
    expected = [theirs["tblocks.1.mhsa.Wq.weight"][rows], theirs["tblocks.1.mhsa.Wk.weight"][rows]]
    assert torch.equal(ours, torch.cat([*expected, theirs["tblocks.1.mhsa.Wv.weight"]]))
    assert ours.dtype == torch.bfloat16


def test_positions_that_turn_otherwise_are_refused(tmp_path: Path) -> None:
    torch.save({"model_state": foreign(GPT25, theta=500_000.0).state_dict()}, tmp_path / "gpt2_5.pt")
    with pytest.raises(
        ValueError,
        match=r"tblocks\.0\.mhsa\.rope\.cos differs from the RoPE table: it must have shape \(16, 32\) and theta 10000",
    ):
        from_gpt2_5(tmp_path / "gpt2_5.pt")


def test_heads_that_nothing_tells_are_refused(tmp_path: Path) -> None:
    torch.save({"model_state_dict": foreign(RangeFlow, d_model=96).state_dict()}, tmp_path / "rangeflow.pt")
    with pytest.raises(ValueError, match="d_model is 96: it must be a multiple of 64, or the"):
        from_rangeflow(tmp_path / "rangeflow.pt")
