"""The ways to compute attention.

Queries are (batch, time, heads, d_head); keys and values (batch, keys, kv_heads, d_head), where each kv head serves
heads / kv_heads consecutive query heads. `AttentionMask` says which keys a query sees. A backend first turns the mask into what
its kernel wants (`plan`, once for all layers), then attends layer by layer. `attention_selection.py` chooses the backend.

* `manual` writes everything out and is the oracle of the others.
* `sdpa` is torch's scaled_dot_product_attention, which picks a kernel by rules of its own.
* `sdpa_flash`, `sdpa_cudnn` and `sdpa_efficient` are one of its kernels each, on CUDA.
* `flash` is the package flash-attn.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
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


class Backend(NamedTuple):
    """`plan(view, device)` and `attend(q, k, v, plan, dropout)`, which gives (batch, time, heads, d_head)."""

    plan: Callable[[AttentionMask, torch.device], Any]
    attend: Callable[[Tensor, Tensor, Tensor, Any, float], Tensor]


def _manual(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, dropout: float) -> Tensor:
    """Softmax over a (queries, keys) matrix of scores under the mask, all of it held in memory."""
    q, k, v = q.transpose(1, 2), _for_each_head(k, q).transpose(1, 2), _for_each_head(v, q).transpose(1, 2)
    scores = (q @ k.transpose(-2, -1)) / math.sqrt(q.shape[-1])
    weights = scores.masked_fill(~mask, float("-inf")).softmax(dim=-1)
    return (F.dropout(weights, p=dropout) @ v).transpose(1, 2)


def _for_each_head(x: Tensor, q: Tensor) -> Tensor:
    """Repeat keys or values so that each query head has its own."""
    group = q.shape[2] // x.shape[2]
    return x if group == 1 else x.repeat_interleave(group, dim=2)


class _SdpaPlan(NamedTuple):
    """A mask only where torch has no better word for it."""

    mask: Tensor | None = None
    is_causal: bool = False
    documents: DocumentsPlan | None = None
    """For the flash kernel."""


def _plan_sdpa(view: AttentionMask, device: torch.device) -> _SdpaPlan:
    if view.first is None and view.last is None:
        if view.n_queries == view.n_keys:
            return _SdpaPlan(is_causal=True)
        if view.n_queries == 1:
            return _SdpaPlan()
    return _SdpaPlan(view.mask(device))  # torch's is_causal would align the mask with the first key, not with the last


def _plan_sdpa_flash(view: AttentionMask, device: torch.device) -> _SdpaPlan:
    return _SdpaPlan(documents=plan_documents(view)) if view.has_documents else _plan_sdpa(view, device)


def _sdpa(
    q: Tensor, k: Tensor, v: Tensor, plan: _SdpaPlan, dropout: float, *, kernel: SDPBackend | None = None
) -> Tensor:
    """torch's scaled_dot_product_attention, by the kernel that is named or else by one that torch picks."""
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
    """Whether a fast kernel takes fewer heads of keys and values than of queries; the others would hold T x T scores."""
    if mask is not None or q.dtype in (torch.float32, torch.float64):
        return False
    if kernel is None and q.is_cuda:
        return torch.cuda.get_device_capability(q.device) >= (8, 0)
    return kernel in (None, SDPBackend.FLASH_ATTENTION)


BACKENDS = {
    "manual": Backend(AttentionMask.mask, _manual),
    "sdpa": Backend(_plan_sdpa, _sdpa),
    "sdpa_flash": Backend(_plan_sdpa_flash, partial(_sdpa, kernel=SDPBackend.FLASH_ATTENTION)),
    "sdpa_cudnn": Backend(_plan_sdpa, partial(_sdpa, kernel=SDPBackend.CUDNN_ATTENTION)),
    "sdpa_efficient": Backend(_plan_sdpa, partial(_sdpa, kernel=SDPBackend.EFFICIENT_ATTENTION)),
    "flash": Backend(plan_flash, attend_flash),
}
