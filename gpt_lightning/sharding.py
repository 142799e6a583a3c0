"""A GPT cut up among the ranks (FSDP2): each rank keeps its rows of every weight, gradient and state of the optimizer.

A block's linear layers are gathered for its forward pass, and again for its backward pass; all else (embedding, norms, head)
stays gathered from one to the other. A checkpoint knows nothing of it: it is the one file that an unsharded
run writes, so that a run goes on sharded or not, on any number of ranks.
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
    """Cut the weights of a model up in place; its `loss_sum` gathers them as they are needed, and nothing else does.

    Args:
        model: the same on every rank.
        mesh: the ranks, one-dimensional.
        gathered_in: the dtype in which autocast multiplies. The linear layers of the blocks are gathered in it, which is what
            autocast makes of them anyway; their gradients, which have it too, are summed over the ranks in fp32. None: in
            the dtype that they have.
    """
    policy = MixedPrecisionPolicy(
        param_dtype=gathered_in, reduce_dtype=None if gathered_in is None else torch.float32, cast_forward_inputs=False
    )
    # Norms work in fp32, so their weights belong to the group of the model. It comes first: it does not look into sharded blocks.
    fully_shard(model, mesh=mesh, ignored_params=set(model.blocks.parameters()) - _norms_of_blocks(model))
    for block in model.blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy, ignored_params=_norms_of_blocks(model))
    register_fsdp_forward_method(model, "loss_sum")


def _norms_of_blocks(model: GPT) -> set[nn.Parameter]:
    return {parameter for name, parameter in model.blocks.named_parameters() if ".norm_" in name}


def is_sharded(model: GPT) -> bool:
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def local_shards(tensors: Iterable[Tensor]) -> list[Tensor]:
    """What this rank holds of each tensor, sharing its memory: of one that is not sharded, all."""
    return [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]


def total_norm(tensors: list[Tensor]) -> Tensor:
    """The norm of all tensors together, a scalar: of sharded ones that of the whole, on every rank the same."""
    norm = torch.nn.utils.get_total_norm(local_shards(tensors))
    if not tensors or not isinstance(tensors[0], DTensor):
        return norm
    squares = norm.double().square()
    torch.distributed.all_reduce(squares, group=tensors[0].device_mesh.get_group())
    return squares.sqrt().to(norm.dtype)


@torch.no_grad()
def unshard(tree: Any, *, keep: bool) -> Any:
    """The same nested dicts and lists with whole tensors on the CPU, gathered one by one: every rank must take part.

    Args:
        tree: may hold sharded tensors; one that it holds twice is gathered once.
        keep: False: this rank only helps, and gets None in their places.
    """
    gathered: dict[int, Tensor | None] = {}

    def of(value: Any) -> Any:
        if not isinstance(value, DTensor):
            return value
        if id(value) not in gathered:
            full = value.full_tensor()
            # a copy of its own: on a CPU the gathered tensor may be a part of a padded one
            gathered[id(value)] = torch.empty_like(full, device="cpu").copy_(full) if keep else None
        return gathered[id(value)]

    return tree_map(of, tree)


def unsharded_model(model: GPT, *, keep: bool) -> GPT | None:
    """The model itself; of a sharded one a whole copy on the same device, for which every rank must take part.

    Args:
        model: is left as it is.
        keep: False: this rank only helps, and gets None.
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
    """Lightning's strategy, but that its checkpoints are those of any other.

    Lightning's own reads a file without verifying it, and takes the numbers of the optimizer's parameters for their order in
    the model, where an optimizer numbers them in the order of its groups: a state would come to another parameter.

    Args:
        n_ranks: on all machines.
        timeout: of an operation of all ranks.
    """

    def __init__(self, *, n_ranks: int, timeout: Any) -> None:
        super().__init__(
            data_parallel_size=n_ranks, tensor_parallel_size=1, save_distributed_checkpoint=False, timeout=timeout
        )

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """On rank 0 the whole weights, on the others an empty dict."""
        assert self.lightning_module is not None
        state = unshard(self.lightning_module.state_dict(keep_vars=True), keep=self.is_global_zero)
        return state if self.is_global_zero else {}

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """On rank 0 what the optimizer would say if it held everything, on the others an empty dict."""
        if isinstance(optimizer, LightningOptimizer):
            optimizer = optimizer.optimizer
        state = unshard(optimizer.state_dict(), keep=self.is_global_zero)
        return state if self.is_global_zero else {}

    def setup_environment(self) -> None:
        """As Lightning does it for DDP: on a CPU the ranks share the cores."""
        super().setup_environment()
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(1, torch.get_num_threads() // self.num_processes))

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Its tensors stay on the disk until each rank takes its rows of them."""
        return read_checkpoint(Path(checkpoint_path), mmap=True)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        module = self.lightning_module
        assert module is not None
        own = module.state_dict()
        state = {key: _cut(value, like=own.get(key)) for key, value in checkpoint["state_dict"].items()}
        module.load_state_dict(state, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Parameters are told by their places in the groups, as optimizers themselves do it."""
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
    """This rank's rows of a whole tensor, cut up as another of its shape is, in memory of their own; anything else as it is."""
    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    part: Any = torch.empty_like(like, dtype=value.dtype, requires_grad=False)
    n_rows = -(-len(value) // like.device_mesh.size())
    first = n_rows * like.device_mesh.get_local_rank()
    part.to_local().copy_(value[first : first + n_rows])
    return part
