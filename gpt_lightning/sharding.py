"""Shard a GPT over ranks (FSDP2): each rank holds its rows of every weight, gradient and optimizer state.

A block's linear layers are gathered for its forward pass, and again for its backward pass. All other parameters
(embedding, norms, head) stay gathered between the two. Checkpoints are not sharded: they equal those of an unsharded
run, so a run can be resumed with or without sharding, on any number of ranks.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.utils._pytree import tree_map

from gpt_lightning.model import GPT
from gpt_lightning.verified_checkpoint import read_checkpoint


def shard(model: GPT, mesh: DeviceMesh, *, gathered_in: torch.dtype | None = None) -> None:
    """Shard the weights of a model in place. Only the model's method `loss_sum` gathers the weights when needed.

    Args:
        model: The same on every rank.
        mesh: The ranks, one-dimensional.
        gathered_in: Dtype in which autocast multiplies. The blocks' linear layers are gathered in this dtype, to which
            autocast would convert them anyway. Their gradients have this dtype too, and are summed over the ranks in
            fp32. None: the dtype of the weights.
    """
    policy = MixedPrecisionPolicy(
        param_dtype=gathered_in, reduce_dtype=None if gathered_in is None else torch.float32, cast_forward_inputs=False
    )
    # Norms use fp32, so their weights belong to the model's group. That group comes first: it skips blocks already
    # sharded.
    fully_shard(model, mesh=mesh, ignored_params=set(model.blocks.parameters()) - _norms_of_blocks(model))
    for block in model.blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy, ignored_params=_norms_of_blocks(model))
    register_fsdp_forward_method(model, "loss_sum")


def _norms_of_blocks(model: GPT) -> set[nn.Parameter]:
    return {parameter for name, parameter in model.blocks.named_parameters() if ".norm_" in name}


def is_sharded(model: GPT) -> bool:
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def local_shards(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Return this rank's part of each tensor, sharing its memory; a tensor that is not sharded is returned unchanged."""
    return [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]


def total_norm(tensors: list[Tensor]) -> Tensor:
    """Return the joint norm of all tensors, a scalar. For sharded tensors, the norm covers all ranks and is equal on
    each rank.
    """
    norm = torch.nn.utils.get_total_norm(local_shards(tensors))
    if not tensors or not isinstance(tensors[0], DTensor):
        return norm
    squares = norm.double().square()
    torch.distributed.all_reduce(squares, group=tensors[0].device_mesh.get_group())
    return squares.sqrt().to(norm.dtype)


@torch.no_grad()
def unshard(tree: Any, *, keep: bool) -> Any:
    """Gather all sharded tensors in nested dicts and lists, one by one, to the CPU. Every rank must call this function.

    Args:
        tree: Nested dicts and lists. A tensor that occurs twice is gathered once.
        keep: False: this rank takes part but gets None instead of the tensors.

    Returns:
        The same nested structure with whole tensors.
    """
    gathered: dict[int, Tensor | None] = {}

    def of(value: Any) -> Any:
        if not isinstance(value, DTensor):
            return value
        if id(value) not in gathered:
            full = value.full_tensor()
            # copy: on a CPU, the gathered tensor may be a view of a padded one
            gathered[id(value)] = torch.empty_like(full, device="cpu").copy_(full) if keep else None
        return gathered[id(value)]

    return tree_map(of, tree)


def unsharded_model(model: GPT, *, keep: bool) -> GPT | None:
    """Return the model if it is not sharded, otherwise a whole copy on the same device. Every rank must call this
    function.

    Args:
        model: The model, which is not changed.
        keep: False: this rank takes part but gets None.
    """
    if not is_sharded(model):
        return model if keep else None
    weights = unshard(model.state_dict(keep_vars=True), keep=keep)
    if not keep:
        return None
    with torch.random.fork_rng(devices=[]):
        copy = GPT(model.config).to(model.head.weight.dtype)
    copy.load_state_dict(weights)
    return copy.to(model.head.weight.device).train(model.training)


class ShardedStrategy(ModelParallelStrategy):
    """Lightning's FSDP2 strategy, but with the same checkpoints as every other strategy.

    Lightning's own strategy reads a file without verifying it. It also assumes that the optimizer numbers its
    parameters in the order of the model, but the numbers follow the order of its groups, so states would be assigned to
    the wrong parameters.

    Args:
        n_ranks: Number of ranks on all machines together.
        timeout: Timeout of collective operations.
    """

    def __init__(self, *, n_ranks: int, timeout: Any) -> None:
        super().__init__(
            data_parallel_size=n_ranks, tensor_parallel_size=1, save_distributed_checkpoint=False, timeout=timeout
        )

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return the whole weights on rank 0, an empty dict on the others."""
        assert self.lightning_module is not None
        state = unshard(self.lightning_module.state_dict(keep_vars=True), keep=self.is_global_zero)
        return state if self.is_global_zero else {}

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """Return the whole optimizer state on rank 0, an empty dict on the others."""
        if isinstance(optimizer, LightningOptimizer):
            optimizer = optimizer.optimizer
        state = unshard(optimizer.state_dict(), keep=self.is_global_zero)
        return state if self.is_global_zero else {}

    def setup_environment(self) -> None:
        """Divide the CPU cores among the ranks, as Lightning does for DDP."""
        super().setup_environment()
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(1, torch.get_num_threads() // self.num_processes))

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint. The tensors stay on disk until each rank copies its own rows."""
        return read_checkpoint(Path(checkpoint_path), mmap=True)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        module = self.lightning_module
        assert module is not None
        own = module.state_dict()
        state = {key: _cut(value, like=own.get(key)) for key, value in checkpoint["state_dict"].items()}
        module.load_state_dict(state, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Load the state. Parameters are identified by their positions in the groups, as in torch's optimizers."""
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            numbers = [n for group in saved["param_groups"] for n in group["params"]]
            state = {
                n: {key: _cut(value, like=parameter) for key, value in saved["state"][n].items()}
                for n, parameter in zip(numbers, parameters, strict=True)
                if n in saved["state"]
            }
            optimizer.load_state_dict(saved | {"state": state})


def _cut(value: Any, *, like: Tensor | None) -> Any:
    """Copy this rank's rows of a whole tensor, sharded as `like`. Other values are returned as they are."""
    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    part: Any = torch.empty_like(like, dtype=value.dtype, requires_grad=False)
    n_rows = -(-len(value) // like.device_mesh.size())
    first = n_rows * like.device_mesh.get_local_rank()
    part.to_local().copy_(value[first : first + n_rows])
    return part
