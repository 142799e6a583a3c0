"""Choose the attention backend.

On a CPU, `auto` means torch's `sdpa`. On CUDA, it names a kernel, because torch's own choice depends on the compute
capability: cuDNN on 9.0 and 10.0 in half precision, and a T x T matrix on 7.5 with grouped queries.
"""

import importlib.util
import logging
from functools import cache

import torch

from gpt_lightning.model.attention_mask import AttentionMask

_AUTO_ON_CUDA = ("flash", "sdpa_flash", "sdpa_efficient")  # the first of these that is supported
_ON_CUDA = ("sdpa_flash", "sdpa_cudnn", "sdpa_efficient", "flash")  # the other backends run on any device
_HALF = (torch.float16, torch.bfloat16)
_log = logging.getLogger(__name__)


def choose_backend(
    wanted: str, device: torch.device, dtype: torch.dtype, d_head: int, view: AttentionMask, *, dropout: float = 0.0
) -> tuple[str, str]:
    """Choose a backend.

    If the configured kernel does not support the arguments, sdpa is used: a model that trains in bf16 under autocast
    also generates samples in fp32 without autocast.

    Args:
        wanted: A key of BACKENDS, or auto.
        device: Where attention is computed.
        dtype: Of queries, keys and values.
        d_head: Size of a head.
        view: Which keys each query attends to.
        dropout: Probability of dropping an attention weight.

    Returns:
        (name of the backend, reason for the choice)
    """
    if wanted not in (*_ON_CUDA, "auto"):
        return wanted, "as configured"
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
    _say_once(f"attention: sdpa ({obstacle})")
    return "sdpa", obstacle


def backend_obstacle(
    name: str, device: torch.device, dtype: torch.dtype, d_head: int, view: AttentionMask, *, dropout: float = 0.0
) -> str | None:
    """Return why a backend does not support these arguments, as a clause; None if it does."""
    if name not in _ON_CUDA:
        return None
    return _hardware_obstacle(name, device, dtype, d_head) or _view_obstacle(name, view, dropout)


def _hardware_obstacle(name: str, device: torch.device, dtype: torch.dtype, d_head: int) -> str | None:
    if device.type != "cuda":
        return f"{_title(name)} needs a CUDA device, and the device is {device.type}"
    if name == "sdpa_efficient":
        return _misalignment(dtype, d_head)
    if dtype not in _HALF:
        return f"{_title(name)} needs fp16 or bf16, and the dtype is {_short(dtype)}"
    most = 128 if name == "sdpa_cudnn" else 256
    if d_head > most or d_head % 8:
        return f"{_title(name)} needs a head size of at most {most} that is a multiple of 8, and it is {d_head}"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return f"{_title(name)} needs compute capability 8.0 or newer, and the device has {_capability(device)}"
    if name == "sdpa_cudnn" and not torch.backends.cudnn.is_available():
        return "this installation of torch has no cuDNN"
    if name == "flash" and not _is_installed("flash_attn"):
        return "the package flash-attn is not installed (pip install flash-attn)"
    return None


def _misalignment(dtype: torch.dtype, d_head: int) -> str | None:
    """Return why the memory-efficient kernel, which reads 16 bytes at a time, does not support the head size."""
    if dtype == torch.float64:
        return "sdpa_efficient does not support float64"
    aligned = 16 // dtype.itemsize
    return (
        f"sdpa_efficient needs a head size that is a multiple of {aligned} for {_short(dtype)}"
        if d_head % aligned
        else None
    )


def _view_obstacle(name: str, view: AttentionMask, dropout: float) -> str | None:
    if name == "sdpa_flash" and view.has_documents and dropout:
        return "sdpa_flash does not support dropout with separate documents"
    if name == "sdpa_flash" and view.needs_mask:
        return "sdpa_flash does not support an explicit mask"
    if name == "flash" and view.first is not None and 1 < view.n_queries < view.n_keys:
        return "flash-attn does not support separate documents with several new tokens after cached ones"
    return None


def _title(name: str) -> str:
    return "flash-attn" if name == "flash" else name


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _capability(device: torch.device) -> str:
    return ".".join(map(str, torch.cuda.get_device_capability(device)))


@cache  # called in every forward pass
def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


@cache
def _say_once(sentence: str) -> None:
    _log.info(sentence)
