"""Muon for the matrices of the blocks and AdamW for all other parameters, as one optimizer."""

import math
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.optim import AdamW, Muon, Optimizer

from gpt_lightning.optim.newton_schulz import orthogonalize
from gpt_lightning.optim.optimizer_traits import OptimizerTraits, StateSize, adamw_state
from gpt_lightning.optim.sharded_matrices import apply_to_full_matrices

BATCH = 2**25
"""Number of matrix elements that a rank orthogonalises at a time. Larger: more memory, fewer kernel launches."""


def _state(parameter: Tensor, group: Mapping[str, Any]) -> StateSize:
    return StateSize(parameter.nbytes, 1) if group.get("muon") else adamw_state(parameter, group)


class MuonAdamW(Optimizer):
    """torch.optim.Muon (arXiv:2502.16982) for parameter groups marked `muon`, torch.optim.AdamW for the others.

    See `parameter_groups`. Lightning, the gradient scaler, the schedule and checkpoints treat it as one optimizer, with
    one list of groups and one state.

    An update of Muon has the root mean square of an AdamW update (`adjust_lr_fn="match_rms_adamw"`), so both use the
    same learning rate and weight decay. In a group with `stacked`, a list of numbers of rows, each weight consists of
    several matrices stacked by rows: queries, keys and values, or gate and up. Each matrix is orthogonalised
    separately. If they were orthogonalised together, the update of each matrix would depend on the relative size
    of its gradient.

    Matrices of equal shape are orthogonalised together in batched products. If parameters are sharded (FSDP2), momentum
    is sharded in the same way, and the ranks exchange rows so that each rank orthogonalises its share of whole
    matrices.

    Args:
        params: Parameter groups.
        lr: Peak learning rate of Muon and AdamW.
        momentum: Nesterov momentum of Muon.
        betas: Of AdamW.
        eps: Of AdamW.
        weight_decay: Of Muon and AdamW.
        fused: Of AdamW; None: torch chooses.
    """

    # Muon multiplies matrices in bf16, so runs that split the global batch differently differ more
    traits = OptimizerTraits(state=_state, muon=True, shardable=True, fused=True, verify_tolerance=1e-3)

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        *,
        lr: float,
        momentum: float = 0.95,
        betas: Sequence[float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
        fused: bool | None = False,
    ) -> None:
        nothing = [torch.zeros(1, 1)]  # torch's optimizers require a parameter
        self._muon_defaults = Muon(nothing, lr, weight_decay, momentum, adjust_lr_fn="match_rms_adamw").defaults
        first, second = betas
        self._adamw = AdamW(nothing, lr, (first, second), eps, weight_decay, fused=fused)
        super().__init__(params, {})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        defaults = self._muon_defaults if param_group.get("muon") else self._adamw.defaults
        super().add_param_group({**defaults, **param_group})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._adamw.param_groups = [group for group in self.param_groups if not group.get("muon")]
        self._adamw.state = self.state
        self._adamw.step()
        for group in self.param_groups:
            if group.get("muon"):
                for batch in _batches(self._matrices(group)):
                    _update(batch, group)
        return loss

    def _matrices(self, group: dict[str, Any]) -> Iterator["_Matrix"]:
        """Yield each matrix of the group that has a gradient."""
        for weight in group["params"]:
            if weight.grad is None:
                continue
            state = self.state[weight]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(weight)
            parameter = weight.detach(), weight.grad, state["momentum_buffer"]
            yield from _split(parameter, group.get("stacked") or [len(weight)])


class _Matrix(NamedTuple):
    """A matrix that is orthogonalised separately: this rank's rows of it, as views of its parameter."""

    weight: Tensor
    gradient: Tensor
    momentum: Tensor
    n_rows: list[int]
    """Number of rows on each rank; one entry if the matrix is not sharded."""
    ranks: ProcessGroup | None
    """None if the matrix is not sharded."""

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the whole matrix, shorter side first."""
        rows, columns = sum(self.n_rows), self.weight.shape[1]
        return min(rows, columns), max(rows, columns)


def _is_sharded(weight: Any) -> bool:
    """Return whether a weight is a DTensor, without importing that class, which takes a second."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(weight, module.DTensor)


def _split(parameter: tuple[Any, Any, Any], stacked: list[int]) -> Iterator[_Matrix]:
    """Yield the matrices of a parameter.

    Args:
        parameter: Weight, gradient and momentum, sharded or not.
        stacked: Number of rows of each matrix.
    """
    weight, *_ = parameter
    ranks, n_ranks, rank = None, 1, 0
    if _is_sharded(weight):
        mesh = weight.device_mesh
        ranks, n_ranks, rank = mesh.get_group(), mesh.size(), mesh.get_local_rank()
        parameter = weight.to_local(), parameter[1].to_local(), parameter[2].to_local()
    # FSDP2 gives each rank the same number of rows, rounded up, so the last ranks have fewer or none.
    share = -(-sum(stacked) // n_ranks)
    ends = list(accumulate(stacked))
    n_rows = [
        [max(0, min(end, (r + 1) * share) - max(start, r * share)) for r in range(n_ranks)]
        for start, end in zip([0, *ends], ends, strict=False)
    ]
    views = zip(*(tensor.split([of_matrix[rank] for of_matrix in n_rows]) for tensor in parameter), strict=True)
    for (weight, gradient, momentum), of_matrix in zip(views, n_rows, strict=True):
        yield _Matrix(weight, gradient, momentum, of_matrix, ranks)


def _batches(matrices: Iterable[_Matrix]) -> Iterator[list[_Matrix]]:
    """Group matrices of equal shape, up to transposition, into batches; the same on every rank."""
    by_shape: defaultdict[tuple[int, int], list[_Matrix]] = defaultdict(list)
    for matrix in matrices:
        by_shape[matrix.shape].append(matrix)
    for (short, long), alike in by_shape.items():
        size = max(1, BATCH // (short * long)) * len(alike[0].n_rows)
        for start in range(0, len(alike), size):
            yield alike[start : start + size]


def _update(batch: list[_Matrix], group: dict[str, Any]) -> None:
    """Apply torch.optim.Muon's step to matrices of one shape."""
    weights, gradients, momenta, n_rows, (ranks, *_) = (list(column) for column in zip(*batch, strict=True))
    torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
    updates = _cast(list(torch._foreach_lerp(gradients, momenta, group["momentum"])), torch.bfloat16)
    function = partial(orthogonalize, coefficients=group["ns_coefficients"], steps=group["ns_steps"], eps=group["eps"])
    updates = function(updates) if ranks is None else apply_to_full_matrices(function, updates, n_rows, ranks)
    torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
    # convert first: torch adds tensors of different dtypes one by one
    lr = group["lr"] * 0.2 * math.sqrt(batch[0].shape[1])
    torch._foreach_add_(weights, _cast(updates, weights[0].dtype), alpha=-lr)


def _cast(tensors: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    copies = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors]
    torch._foreach_copy_(copies, tensors)
    return copies
