"""Blocks gathered in bf16 compute what autocast makes of blocks gathered in fp32."""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import destroy_process_group, init_process_group
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from gpt_lightning.model import GPT
from gpt_lightning.sharding import shard, total_norm, unshard
from tests.gpt_lightning.tiny_models import FAMILIES, build, sequences
from tests.training_starts import on_ranks

RANKS = 2


def step(model: GPT, rank: int) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Losses of this rank and whole gradients, of two micro-batches with dropout."""
    torch.manual_seed(rank)
    losses = []
    for micro in range(2):
        ids, targets, mask = (tensor.roll(RANKS * micro + rank, 0) for tensor in sequences())
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            loss = model.loss_sum(ids, targets, mask).objective
        loss.backward()
        losses.append(loss.detach())
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    norm = total_norm([gradient for gradient in gradients.values() if gradient is not None])
    return losses, unshard(gradients, keep=True) | {"norm": norm}


def dtypes_in_use(model: GPT) -> dict[str, set[torch.dtype]]:
    """The dtypes of the weights that each kind of layer sees, filled by forward passes."""
    seen: dict[str, set[torch.dtype]] = {"linear": set(), "norm": set(), "embedding": set(), "stream": set()}

    def record(kind: str, layer: Any) -> None:
        seen[kind].update(parameter.dtype for parameter in layer.parameters(recurse=False))

    for module in model.blocks.modules():
        kind = "linear" if isinstance(module, nn.Linear) else "norm"
        module.register_forward_pre_hook(lambda layer, _, kind=kind: record(kind, layer))
    for block in model.blocks:
        block.register_forward_hook(lambda _, inputs, output: seen["stream"].update((inputs[0].dtype, output.dtype)))
    model.embedding.register_forward_pre_hook(lambda layer, _: record("embedding", layer))
    return seen


def compare(rank: int, folder: Path) -> None:
    """On one of the ranks."""
    torch.set_num_threads(1)
    init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=RANKS)
    mesh = init_device_mesh("cpu", (RANKS,))
    for choices in FAMILIES.values():
        compare_models(rank, mesh, dropout=0.1, d_ff=49, **choices)
    destroy_process_group()


def compare_models(rank: int, mesh: DeviceMesh, **choices: Any) -> None:
    in_fp32, in_bf16 = build(**choices), build(**choices)
    shard(in_fp32, mesh)
    shard(in_bf16, mesh, gathered_in=torch.bfloat16)
    seen = dtypes_in_use(in_bf16)
    torch.testing.assert_close(step(in_bf16, rank), step(in_fp32, rank), rtol=0, atol=0)
    assert seen["linear"] == {torch.bfloat16}
    assert seen["norm"] == seen["embedding"] == seen["stream"] == {torch.float32}
    assert {p.dtype for p in in_bf16.parameters()} == {torch.float32}


def test_they_give_the_same_losses_and_gradients_to_the_last_bit(tmp_path: Path) -> None:
    on_ranks("tests.gpt_lightning.test_sharding", RANKS, tmp_path)


if __name__ == "__main__":
    compare(int(sys.argv[1]), Path(sys.argv[3]))
