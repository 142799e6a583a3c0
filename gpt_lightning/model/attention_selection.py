"""Choose the attention backend.

On a CPU, `auto` means torch's `sdpa`. On CUDA, `auto` selects a kernel explicitly, because torch's own choice depends
on the compute capability: cuDNN on 9.0 and 10.0 in half precision, and a T x T matrix on 7.5 with grouped queries.
"""

import logging
from functools import cache

import torch

from gpt_lightning.model.attention_mask import AttentionMask
from gpt_lightning.model.part_registry import BACKENDS

_AUTO_ON_CUDA = ("flash", "sdpa_flash", "sdpa_efficient")  # the first of these that is supported
_log = logging.getLogger(__name__)


def choose_backend(
    wanted: str, device: torch.device, dtype: torch.dtype, d_head: int, view: AttentionMask, *, dropout: float = 0.0
) -> tuple[str, str]:
    """Choose a backend.

    If the configured kernel does not support the arguments, sdpa is used: a model that trains in bf16 under autocast
    also generates samples in fp32 without autocast. Only a standard backend is replaced.

    Args:
        wanted: A key of BACKENDS, or auto.
        device: Where attention is computed.
        dtype: Of queries, keys and values.
        d_head: Size of a head.
        view: Which keys each query attends to.
        dropout: Probability of dropping an attention weight.

    Returns:
        (name of the backend, reason for the choice)

    Raises:
        ValueError: The backend does not support the arguments and is not standard.
    """
    if wanted == "auto" and device.type != "cuda":
        return "sdpa", f"the device is {device.type}"
    obstacle = None
    for name in _AUTO_ON_CUDA if wanted == "auto" else (wanted,):
        obstacle = backend_obstacle(name, device, dtype, d_head, view, dropout=dropout)
        if obstacle is None:
            _say_once(f"attention: {name}")
            if wanted != "auto":
                return name, "as configured"
            return name, f"auto for {_short(dtype)} on compute capability {_capability(device)}"
    assert obstacle is not None
    if wanted != "auto" and not BACKENDS[wanted].traits.standard:
        raise ValueError(f"model.attention={wanted} cannot run: {obstacle}.")
    _say_once(f"attention: sdpa ({obstacle})")
    return "sdpa", obstacle


def backend_obstacle(
    name: str, device: torch.device, dtype: torch.dtype, d_head: int, view: AttentionMask, *, dropout: float = 0.0
) -> str | None:
    """Return why a backend does not support these arguments, as a clause; None if it supports them."""
    return _hardware_obstacle(name, device, dtype, d_head) or BACKENDS[name].traits.mask_obstacle(view, dropout)


def gpu_obstacle(
    name: str, dtype: torch.dtype, d_head: int, view: AttentionMask, *, dropout: float = 0.0
) -> str | None:
    """Return why a backend does not support these arguments on any GPU, as a clause; None if some GPU does."""
    return _kernel_obstacle(name, dtype, d_head) or BACKENDS[name].traits.mask_obstacle(view, dropout)


def portable_attention(name: str) -> str:
    """Return the setting `attention` of a saved model for any device: auto instead of a standard backend."""
    return "auto" if name in BACKENDS and BACKENDS[name].traits.standard else name


def expected_backend(
    wanted: str, device_type: str, dtype: torch.dtype, d_head: int, view: AttentionMask, *, dropout: float = 0.0
) -> str:
    """Return the backend that `choose_backend` will choose on another machine.

    For `auto` on CUDA, this function assumes compute capability 8.0 or newer and the packages of this installation. A
    configured backend is returned unchanged.
    """
    if wanted != "auto" or device_type != "cuda":
        return "sdpa" if wanted == "auto" else wanted
    for name in _AUTO_ON_CUDA:
        if not (gpu_obstacle(name, dtype, d_head, view, dropout=dropout) or BACKENDS[name].traits.missing()):
            return name
    return "sdpa"


def _hardware_obstacle(name: str, device: torch.device, dtype: torch.dtype, d_head: int) -> str | None:
    traits = BACKENDS[name].traits
    if traits.needs_cuda and device.type != "cuda":
        return f"{name} needs a CUDA device, and the device is {device.type}"
    if obstacle := _kernel_obstacle(name, dtype, d_head):
        return obstacle
    least = traits.min_capability
    if least and torch.cuda.get_device_capability(device) < least:
        return (
            f"{name} needs compute capability {least[0]}.{least[1]} or newer, and the device has {_capability(device)}"
        )
    return traits.missing()


def _kernel_obstacle(name: str, dtype: torch.dtype, d_head: int) -> str | None:
    """Return why the kernel does not support the dtype or the size of a head on any device."""
    traits = BACKENDS[name].traits
    if traits.dtypes and dtype not in traits.dtypes:
        return f"{name} needs {' or '.join(map(_short, traits.dtypes))}, and the dtype is {_short(dtype)}"
    multiple = max(1, traits.head_alignment // dtype.itemsize)
    if d_head % multiple or d_head > (traits.max_d_head or d_head):
        at_most = f" of at most {traits.max_d_head}" if traits.max_d_head else ""
        return f"{name} needs a head size{at_most} that is a multiple of {multiple}, and it is {d_head}"
    return None


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _capability(device: torch.device) -> str:
    return ".".join(map(str, torch.cuda.get_device_capability(device)))


@cache
def _say_once(sentence: str) -> None:
    _log.info(sentence)
