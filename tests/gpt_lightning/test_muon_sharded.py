"""Muon on sharded parameters makes the steps that it makes on whole ones."""

import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed import destroy_process_group, init_process_group
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from gpt_lightning.model import GPT
from gpt_lightning.optim import MuonAdamW, muon, parameter_groups
from gpt_lightning.sharding import ShardedStrategy, shard, unshard
from tests.gpt_lightning.tiny_models import FAMILIES, build
from tests.training_starts import on_ranks

# Weights whose rows do not divide by the ranks, so that matrices are cut anywhere; with 5 ranks the last one
# has no row of some weights. Queries, keys and values have another number of rows each.
MODELS: list[dict[str, Any]] = [
    FAMILIES["gpt2"] | {"d_ff": 49},
    FAMILIES["llama"] | {"d_ff": 49, "n_kv_heads": 2},
    FAMILIES["modern"] | {"d_ff": 6, "d_model": 8},
]
BATCHES = [1, muon.BATCH]  # one matrix for each rank at a time, and all of them


def optimizer_of(model: GPT) -> MuonAdamW:
    return MuonAdamW(parameter_groups(model, muon=True), lr=3e-3)


def take_steps(model: GPT, optimizer: MuonAdamW, *steps: int) -> None:
    """Gradients are the same numbers, sharded as the parameters are."""
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for parameter in model.parameters():
            gradient = torch.randn(parameter.shape, generator=generator)
            mesh = getattr(parameter, "device_mesh", None)
            parameter.grad = gradient if mesh is None else distribute_tensor(gradient, mesh, [Shard(0)])
        optimizer.step()


def compare(rank: int, n_ranks: int, folder: Path) -> None:
    """On one of several ranks."""
    torch.set_num_threads(1)
    init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=n_ranks)
    mesh = init_device_mesh("cpu", (n_ranks,))
    for choices in MODELS:
        for muon.BATCH in BATCHES:
            compare_models(build(**choices), build(**choices), mesh)
    destroy_process_group()


def compare_models(straight: GPT, sharded: GPT, mesh: DeviceMesh) -> None:
    """Three steps, the last one after the state of the whole run was loaded."""
    shard(sharded, mesh)
    theirs, ours = optimizer_of(straight), optimizer_of(sharded)
    take_steps(straight, theirs, 0, 1)
    take_steps(sharded, ours, 0, 1)
    assert ours.state_dict()["param_groups"] == theirs.state_dict()["param_groups"]
    assert_equal(sharded.state_dict(), straight.state_dict())
    assert_equal(ours.state_dict()["state"], theirs.state_dict()["state"])

    resumed = optimizer_of(sharded)
    strategy = ShardedStrategy(n_ranks=mesh.size(), timeout=None)
    strategy.optimizers = [resumed]
    strategy.load_optimizer_state_dict({"optimizer_states": [deepcopy(theirs.state_dict())]})
    take_steps(straight, theirs, 2)
    take_steps(sharded, resumed, 2)
    assert_equal(sharded.state_dict(), straight.state_dict())


def assert_equal(sharded: Any, straight: Any) -> None:
    torch.testing.assert_close(unshard(sharded, keep=True), straight, rtol=0, atol=0)


@pytest.mark.parametrize("n_ranks", [2, 5])
def test_it_makes_the_same_steps_to_the_last_bit(n_ranks: int, tmp_path: Path) -> None:
    on_ranks("tests.gpt_lightning.test_muon_sharded", n_ranks, tmp_path)


if __name__ == "__main__":
    compare(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
