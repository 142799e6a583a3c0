"""What a part of the model keeps for its backward pass, measured on the meta device."""

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
    """Bytes per token."""

    kept: float
    """From the forward pass to the backward pass, without parameters and without the part's input."""
    kept_input: float
    """The part's input, if the backward pass needs it."""
    kept_compiled: float
    """Like `kept`, of a compiled part: it keeps what goes through matrix products and computes the rest again."""
    in_backward: float
    """The most that the backward pass holds beyond `kept`, without gradients of the output and of parameters."""


def measure_part(part: nn.Module, call: Callable[[Any, Tensor], Tensor], x: Tensor) -> PartMemory:
    """Run a part forward and backward on the meta device.

    What a second sequence adds is what counts, so that whatever does not grow with the tokens is left out.

    Args:
        part: on the meta device; it is copied, in the dtype of x.
        call: (part, x) -> its output.
        x: (1, time, width), on the meta device.
    """
    part = deepcopy(part).to(x.dtype)
    one, two = (_measure(part, call, x.detach().repeat(batch, 1, 1).requires_grad_()) for batch in (1, 2))
    return PartMemory(*((more - less) / x.shape[1] for less, more in zip(one, two, strict=True)))


def _measure(part: nn.Module, call: Callable[[Any, Tensor], Tensor], x: Tensor) -> PartMemory:
    """In bytes, of all tokens."""
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
    """Notes what goes through matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.in_products: dict[int, UntypedStorage] = {}
        self._made: list[UntypedStorage] = []
        """All that was made lives on, so that no two storages have the same address."""

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        made = [value for value in tree_leaves(result) if isinstance(value, Tensor)]
        self._made += [tensor.untyped_storage() for tensor in made]
        if operation.overloadpacket in _PRODUCTS:
            taken = [value for value in args if isinstance(value, Tensor)]
            self.in_products |= {_address(tensor): tensor.untyped_storage() for tensor in (*taken, *made)}
        return result


class _BackwardPass(TorchDispatchMode):
    """Counts bytes that live, of what was kept and of what operations make.

    Args:
        kept: from the forward pass.
        own: addresses of what does not count.
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
