"""Attention backends.

Queries are (batch, time, heads, d_head). Keys and values are (batch, keys, kv_heads, d_head); each kv head serves
heads / kv_heads consecutive query heads. `AttentionMask` states which keys a query attends to. A backend first converts
the mask to the format of its kernel (`plan`, once for all layers), then computes attention layer by layer.
`attention_selection.py` chooses the backend, by its traits.

* `manual` computes every step explicitly; tests compare the other backends with `manual`.
* `sdpa` is torch's scaled_dot_product_attention, which chooses a kernel itself.
* `sdpa_flash`, `sdpa_cudnn` and `sdpa_efficient` each use one of torch's kernels, on CUDA.
* `flash` is the package flash-attn.
"""

import importlib.util
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from gpt_lightning.model.attention_flash import (
    DocumentsPlan,
    attend_documents,
    attend_flash,
    plan_documents,
    plan_flash,
)
from gpt_lightning.model.attention_mask import AttentionMask


@dataclass(frozen=True, kw_only=True)
class BackendTraits:
    """What a backend requires. The defaults suit a backend that consists of torch operations and runs on any device."""

    needs_cuda: bool = False
    min_capability: tuple[int, int] | None = None
    """Lowest compute capability of a CUDA device; None: any."""
    dtypes: tuple[torch.dtype, ...] = ()
    """Supported dtypes of queries, keys and values; empty: all."""
    max_d_head: int | None = None
    """Largest size of a head; None: no limit."""
    head_alignment: int = 1
    """Number of bytes of which a head must be a multiple."""
    missing: Callable[[], str | None] = lambda: None
    """Why the kernel is not installed, as a clause; None if it is."""
    mask_obstacle: Callable[[AttentionMask, float], str | None] = lambda view, dropout: None
    """(mask, dropout probability) -> why the kernel does not support this mask or dropout, as a clause; None if it
    does.
    """
    standard: bool = False
    """Whether the backend computes softmax(q k / sqrt(d_head)) v, so that another standard backend may replace it. A
    model with another backend is always evaluated with that backend.
    """
    deterministic: bool = True
    """Whether the gradients are bit-identical when the computation is repeated with `trainer.deterministic`."""
    fused: bool = False
    """Whether the backend keeps no more for the backward pass than queries, keys, values, output and one number per
    query and head. plan.py measures the memory of other backends by calling them on the meta device, so these backends
    must run there.
    """


class Backend(NamedTuple):
    """`plan(view, device)` makes a plan; `attend(q, k, v, plan, dropout)` returns (batch, time, heads, d_head)."""

    plan: Callable[[AttentionMask, torch.device], Any]
    attend: Callable[[Tensor, Tensor, Tensor, Any, float], Tensor]
    traits: BackendTraits = BackendTraits()


def _manual(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, dropout: float) -> Tensor:
    """Compute the full (queries, keys) matrix of scores and its masked softmax; needs memory for all of it."""
    q, k, v = q.transpose(1, 2), _for_each_head(k, q).transpose(1, 2), _for_each_head(v, q).transpose(1, 2)
    scores = (q @ k.transpose(-2, -1)) / math.sqrt(q.shape[-1])
    weights = scores.masked_fill(~mask, float("-inf")).softmax(dim=-1)
    return (F.dropout(weights, p=dropout) @ v).transpose(1, 2)


def _for_each_head(x: Tensor, q: Tensor) -> Tensor:
    """Repeat keys or values so that each query head has its own copy."""
    group = q.shape[2] // x.shape[2]
    return x if group == 1 else x.repeat_interleave(group, dim=2)


class _SdpaPlan(NamedTuple):
    """Arguments for scaled_dot_product_attention; an explicit mask only if torch has no shorter description."""

    mask: Tensor | None = None
    is_causal: bool = False
    documents: DocumentsPlan | None = None
    """For the flash kernel with separate documents."""


def _plan_sdpa(view: AttentionMask, device: torch.device) -> _SdpaPlan:
    if view.first is None and view.last is None:
        if view.n_queries == view.n_keys:
            return _SdpaPlan(is_causal=True)
        if view.n_queries == 1:
            return _SdpaPlan()
    return _SdpaPlan(view.mask(device))  # is_causal would align the mask with the first key instead of the last


def _plan_sdpa_flash(view: AttentionMask, device: torch.device) -> _SdpaPlan:
    return _SdpaPlan(documents=plan_documents(view)) if view.has_documents else _plan_sdpa(view, device)


def _sdpa(
    q: Tensor, k: Tensor, v: Tensor, plan: _SdpaPlan, dropout: float, *, kernel: SDPBackend | None = None
) -> Tensor:
    """Call torch's scaled_dot_product_attention with the given kernel, or with one that torch chooses."""
    if plan.documents is not None:
        return attend_documents(q, k, v, plan.documents)
    if not _groups_queries(q, plan.mask, kernel):
        k, v = _for_each_head(k, q), _for_each_head(v, q)
    with nullcontext() if kernel is None else sdpa_kernel(kernel):
        return F.scaled_dot_product_attention(
            q.transpose(1, 2),
            k.transpose(1, 2),
            v.transpose(1, 2),
            attn_mask=plan.mask,
            dropout_p=dropout,
            is_causal=plan.is_causal,
            enable_gqa=q.shape[2] != k.shape[2],
        ).transpose(1, 2)


def _groups_queries(q: Tensor, mask: Tensor | None, kernel: SDPBackend | None) -> bool:
    """Return whether a fast kernel supports fewer key/value than query heads; others would store T x T scores."""
    if mask is not None or q.dtype in (torch.float32, torch.float64):
        return False
    if kernel is None and q.is_cuda:
        return torch.cuda.get_device_capability(q.device) >= (8, 0)
    return kernel in (None, SDPBackend.FLASH_ATTENTION)


def _flash_is_missing() -> str | None:
    if _is_installed("flash_attn"):
        return None
    return "the package flash-attn is not installed (pip install flash-attn)"


def _cudnn_is_missing() -> str | None:
    return None if torch.backends.cudnn.is_available() else "this installation of torch has no cuDNN"


def _flash_obstacle(view: AttentionMask, dropout: float) -> str | None:
    if view.first is not None and 1 < view.n_queries < view.n_keys:
        return "flash does not support separate documents with several new tokens after cached ones"
    return None


def _sdpa_flash_obstacle(view: AttentionMask, dropout: float) -> str | None:
    if view.has_documents and dropout:
        return "sdpa_flash does not support dropout with separate documents"
    return "sdpa_flash does not support an explicit mask" if view.needs_mask else None


@cache  # called in every forward pass
def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


_HALF = BackendTraits(
    standard=True,
    needs_cuda=True,
    min_capability=(8, 0),
    dtypes=(torch.float16, torch.bfloat16),
    max_d_head=256,
    head_alignment=16,
)
# `part_registry.BACKENDS` gives them their names
MANUAL = Backend(AttentionMask.mask, _manual, BackendTraits(standard=True))
SDPA = Backend(_plan_sdpa, _sdpa, BackendTraits(standard=True))
SDPA_FLASH = Backend(
    _plan_sdpa_flash,
    partial(_sdpa, kernel=SDPBackend.FLASH_ATTENTION),
    replace(_HALF, mask_obstacle=_sdpa_flash_obstacle, fused=True),
)
SDPA_CUDNN = Backend(
    _plan_sdpa,
    partial(_sdpa, kernel=SDPBackend.CUDNN_ATTENTION),
    replace(_HALF, max_d_head=128, missing=_cudnn_is_missing, deterministic=False),
)
SDPA_EFFICIENT = Backend(
    _plan_sdpa,
    partial(_sdpa, kernel=SDPBackend.EFFICIENT_ATTENTION),
    BackendTraits(
        standard=True, needs_cuda=True, dtypes=(torch.float16, torch.bfloat16, torch.float32), head_alignment=16
    ),  # it reads 16 bytes at a time
)
FLASH = Backend(
    plan_flash, attend_flash, replace(_HALF, missing=_flash_is_missing, mask_obstacle=_flash_obstacle, fused=True)
)
