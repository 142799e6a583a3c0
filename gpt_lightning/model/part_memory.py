"""Measure how much memory a part of the model keeps for its backward pass, on the meta device."""

import weakref
from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor, UntypedStorage, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_PRODUCTS = {torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm, torch.ops.aten.baddbmm}


class PartMemory(NamedTuple):
    """Memory of a part, in bytes per token."""

    kept: float
    """Kept from the forward to the backward pass, without parameters and the part's input."""
    kept_input: float
    """Memory of the part's input, if the backward pass needs the input; otherwise 0."""
    kept_compiled: float
    """As `kept`, if the part is compiled and so keeps only inputs and outputs of matrix products."""
    in_backward: float
    """Peak of the backward pass beyond `kept`, without the gradients of the output and of parameters."""


def measure_part(part: nn.Module, call: Callable[[Any, Tensor], Tensor], x: Tensor) -> PartMemory:
    """Run a part forward and backward on the meta device, and measure its memory.

    The result is the difference between a batch of two sequences and one, so memory that does not grow with the number
    of tokens is excluded.

    Args:
        part: On the meta device. It is copied and converted to the dtype of x.
        call: (part, x) -> output of the part.
        x: (1, time, width), on the meta device.
    """
    part = deepcopy(part).to(x.dtype)
    one, two = (_measure(part, call, x.detach().repeat(batch, 1, 1).requires_grad_()) for batch in (1, 2))
    return PartMemory(*((more - less) / x.shape[1] for less, more in zip(one, two, strict=True)))


def _measure(part: nn.Module, call: Callable[[Any, Tensor], Tensor], x: Tensor) -> PartMemory:
    """Measure the memory for all tokens together, in bytes."""
    saved: dict[int, UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved[_address(tensor)] = tensor.untyped_storage()
        return tensor

    with _ForwardPass() as forward, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = call(part, x)
    of_input = saved[_address(x)].nbytes() if _address(x) in saved else 0
    own = {_address(tensor) for tensor in (x, *part.parameters(), *part.buffers())}
    kept = sum(storage.nbytes() for address, storage in saved.items() if address not in own)
    kept_compiled = sum(
        storage.nbytes() for address, storage in forward.in_products.items() if address not in {*own, _address(y)}
    )
    with _BackwardPass(saved.values(), own) as backward:
        gradient = torch.empty_like(y)
        saved.clear()
        del forward
        torch.autograd.grad(y, x, gradient)
    in_backward = backward.peak - kept - gradient.untyped_storage().nbytes()
    return PartMemory(kept, of_input, min(kept, kept_compiled), in_backward)


class _ForwardPass(TorchDispatchMode):
    """Record the inputs and outputs of matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.in_products: dict[int, UntypedStorage] = {}
        self._made: list[UntypedStorage] = []
        """Keeps all storages alive, so that no two have the same address."""

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        made = [value for value in tree_leaves(result) if isinstance(value, Tensor)]
        self._made += [tensor.untyped_storage() for tensor in made]
        if operation.overloadpacket in _PRODUCTS:
            taken = [value for value in args if isinstance(value, Tensor)]
            self.in_products |= {_address(tensor): tensor.untyped_storage() for tensor in (*taken, *made)}
        return result


class _BackwardPass(TorchDispatchMode):
    """Track the number of live bytes, of kept storages and of those that operations create.

    Args:
        kept: Storages kept from the forward pass.
        own: Addresses of storages that do not count.
    """

    def __init__(self, kept: Iterable[UntypedStorage], own: set[int]) -> None:
        super().__init__()
        self.peak = 0
        self._now = 0
        self._counted = set(own)
        for storage in kept:
            self._count(storage)

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self._count(value.untyped_storage())
        return result

    def _count(self, storage: UntypedStorage) -> None:
        if storage._cdata not in self._counted:
            self._counted.add(storage._cdata)
            self._now += storage.nbytes()
            self.peak = max(self.peak, self._now)
            weakref.finalize(storage, self._free, storage._cdata, storage.nbytes())

    def _free(self, address: int, n_bytes: int) -> None:
        self._counted.discard(address)
        self._now -= n_bytes


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
