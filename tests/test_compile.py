"""torch.compile changes speed and rounding, nothing else."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt_lightning.generation import Sampling, generate
from gpt_lightning.model import GPT, GPTConfig
from gpt_lightning.verified_checkpoint import read_checkpoint
from running.commands.train import train
from running.config.compose import compose_config, group_choices
from tests.gpt_lightning.tiny_models import FAMILIES, build, sequences

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU"),
    # torch's compiler warns of what it does itself
    pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
]


def test_a_run_goes_on_compiled_from_its_plain_checkpoint(
    tiny_config: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    settings = ("name=run", "model.dropout=0", "trainer.precision=32-true")
    train(tiny_config(*settings))
    run = tmp_path / "runs" / "run"
    last = run / "checkpoints" / "step_00000012.pt"
    plain = read_checkpoint(last)
    for step in (8, 12):  # as if it had been stopped after step 4
        for path in run.glob(f"checkpoints/step_{step:08d}.*"):
            path.unlink()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    train(tiny_config(*settings, "trainer.compile=true"))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    compiled = read_checkpoint(last)
    assert list(compiled["state_dict"]) == list(plain["state_dict"])
    for key, value in plain["state_dict"].items():
        torch.testing.assert_close(compiled["state_dict"][key], value, atol=1e-4, rtol=1e-4)


def test_all_blocks_share_one_compilation() -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    token_ids, targets, _ = sequences()
    plain, compiled = (build(n_layers=3, **FAMILIES["modern"]) for _ in range(2))
    compiled.compile_blocks()
    for _ in range(2):
        for model in (plain, compiled):
            model.zero_grad()
            model.loss(token_ids, targets).backward()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    for eager, other in zip(plain.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(eager.grad, other.grad, atol=1e-6, rtol=1e-5)


def test_documents_that_move_do_not_compile_again() -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    apart = {"attend_across_documents": False, "eot_id": 7}
    plain, compiled = (build(**FAMILIES["modern"] | apart) for _ in range(2))
    compiled.compile_blocks()
    token_ids, targets, _ = sequences()
    for place in (0, 5, 11):
        moved = torch.where(token_ids == 7, 8, token_ids).index_fill(1, torch.tensor([place]), 7)
        torch.testing.assert_close(compiled.loss(moved, targets), plain.loss(moved, targets), atol=1e-6, rtol=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_a_compiled_model_generates_without_compiling() -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    plain, compiled = (build(**FAMILIES["llama"]) for _ in range(2))
    compiled.compile_blocks()
    prompts, greedy = [[1, 2, 3], [4]], Sampling(temperature=0)
    assert generate(compiled, prompts, 20, sampling=greedy) == generate(plain, prompts, 20, sampling=greedy)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 0


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
def test_no_shipped_model_breaks_the_graph(recompute: bool) -> None:
    """One graph for all blocks: a break would be an error, and a second graph a compilation for each block.

    Models whose blocks differ in nothing but their size are compiled once.
    """
    sizes = {"vocab_size": 97, "max_seq_len": 16, "d_model": 32, "n_layers": 2, "n_heads": 4, "d_ff": 48}
    kinds: dict[str, dict[str, Any]] = {}
    for name in group_choices("model"):
        shipped = compose_config("train", [f"model={name}"])["model"] | sizes | {"tie_embeddings": False}
        shipped |= {"n_kv_heads": 2} if shipped["n_kv_heads"] else {}
        kinds.setdefault(json.dumps(shipped, sort_keys=True), shipped)
    for kind, choices in kinds.items():
        model = GPT(GPTConfig(**choices, eot_id=7))
        model.recompute = recompute
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        for block in model.blocks:
            block.compile(fullgraph=True, backend="aot_eager")
        token_ids, targets, _ = sequences()
        model.loss(token_ids, targets).backward()
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1, kind
        assert not torch._dynamo.utils.counters["graph_break"], kind
