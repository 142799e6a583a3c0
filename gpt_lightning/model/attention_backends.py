"""The ways to compute attention.

Queries are (batch, time, heads, d_head); keys and values (batch, keys, kv_heads, d_head), where each kv head serves
heads / kv_heads consecutive query heads. What a query may see is a `View`. A backend first turns the view into what its kernel
wants (`plan`, once for all layers), then attends layer by layer. `manual` writes everything out and is the oracle of the others.
"""

import importlib.util
import logging
import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_log = logging.getLogger(__name__)


class View(NamedTuple):
    """The keys that each query sees: from `first` to `last`, both included."""

    n_queries: int
    n_keys: int
    first: Tensor | None = None
    """(batch, queries) int64; None: from the first key on."""
    last: Tensor | None = None
    """(batch, queries) int64; None: the last query sees all keys, the one before it one less, and so on."""

    def mask(self, device: torch.device) -> Tensor:
        """(queries, keys) or (batch, 1, queries, keys) bool, True where a query sees a key."""
        keys = torch.arange(self.n_keys, device=device)
        if self.last is None:
            square = torch.ones(self.n_queries, self.n_keys, dtype=torch.bool, device=device)
            mask = square.tril(self.n_keys - self.n_queries)
        else:
            mask = keys <= self.last[:, None, :, None]
        return mask if self.first is None else mask & (keys >= self.first[:, None, :, None])


class Backend(NamedTuple):
    """`plan(view, device)` and `attend(q, k, v, plan, dropout)`, which gives (batch, time, heads, d_head)."""

    plan: Callable[[View, torch.device], Any]
    attend: Callable[[Tensor, Tensor, Tensor, Any, float], Tensor]


def choose_backend(
    wanted: str, device: torch.device, dtype: torch.dtype, d_head: int, view: View | None = None
) -> tuple[str, str]:
    """(name of the backend for such queries, why).

    `auto` and `flash` take flash where it can run, else sdpa: a model that trains in bf16 under autocast also writes samples,
    outside of it and in fp32.
    """
    if wanted not in ("auto", "flash"):
        return wanted, "as configured"
    obstacle = flash_obstacle(device, dtype, d_head)
    if view is not None and view.first is not None and 1 < view.n_queries < view.n_keys:
        obstacle = obstacle or "flash-attn cannot mask documents where several tokens follow cached ones"
    chosen = ("sdpa", obstacle) if obstacle else ("flash", "flash-attn is installed")
    _say_once("attention: {} ({})".format(*chosen))
    return chosen


def flash_obstacle(device: torch.device, dtype: torch.dtype, d_head: int) -> str | None:
    """Why the package flash-attn cannot be used here; None: it can."""
    if device.type != "cuda":
        return f"flash-attn needs a CUDA device and this is {device.type}"
    if dtype not in (torch.float16, torch.bfloat16):
        return f"flash-attn computes in fp16 or bf16 and this is {str(dtype).removeprefix('torch.')}"
    if d_head > 256:
        return f"flash-attn takes heads of up to 256 dimensions and these have {d_head}"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return "flash-attn needs compute capability 8.0 or newer"
    if not _is_installed("flash_attn"):
        return "the package flash-attn is not installed (pip install flash-attn)"
    return None


@cache  # asked in every forward pass
def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


@cache
def _say_once(sentence: str) -> None:
    _log.info(sentence)


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


def _plan_sdpa(view: View, device: torch.device) -> tuple[Tensor | None, bool]:
    """(mask, is_causal): a mask only where torch has no better word for it."""
    if view.first is None and view.last is None:
        if view.n_queries == view.n_keys:
            return None, True
        if view.n_queries == 1:
            return None, False
    return view.mask(device), False  # torch's is_causal would align the mask with the first key, not with the last


def _sdpa(q: Tensor, k: Tensor, v: Tensor, plan: tuple[Tensor | None, bool], dropout: float) -> Tensor:
    """torch's scaled_dot_product_attention, which picks the fastest kernel for the device."""
    mask, is_causal = plan
    # only in half precision and without a mask can torch's fast kernels group queries
    if mask is not None or q.dtype == torch.float32:
        k, v = _for_each_head(k, q), _for_each_head(v, q)
    return F.scaled_dot_product_attention(
        q.transpose(1, 2),
        k.transpose(1, 2),
        v.transpose(1, 2),
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=is_causal,
        enable_gqa=q.shape[2] != k.shape[2],
    ).transpose(1, 2)


class _FlashPlan(NamedTuple):
    """What of flash-attn's three functions is called, and with what."""

    borders: Tensor | None = None
    """(documents + 1,) int32, where each document begins in the flattened batch; None: no documents."""
    longest: int = 0
    """The most tokens a document can have."""
    key_counts: Tensor | None = None
    """(batch,) int32, where the keys that the last query of each sequence sees end; None: it sees all."""
    key_starts: Tensor | None = None
    """(batch,) int32, where they begin; None: at the first."""


def _plan_flash(view: View, device: torch.device) -> _FlashPlan:
    if view.first is not None and view.n_queries == view.n_keys:
        return _FlashPlan(borders=_document_borders(view.first), longest=view.n_queries)
    key_counts = None if view.last is None else (view.last[:, -1] + 1).int()
    if view.first is None:
        return _FlashPlan(key_counts=key_counts)
    if key_counts is None:
        key_counts = torch.full((len(view.first),), view.n_keys, dtype=torch.int32, device=device)
    return _FlashPlan(key_counts=key_counts, key_starts=view.first[:, 0].int())


def _document_borders(first: Tensor) -> Tensor:
    """Borders of a fixed number in all but extreme batches, so that compiled code meets one shape.

    Documents of no tokens fill up the tail. There is room for one document per 64 tokens, and where a batch has more, for
    the next power of two.
    """
    batch, time = first.shape
    starts = (first == torch.arange(time, device=first.device)).flatten()
    room = batch + max(1, batch * time // 64)
    documents = int(starts.sum())
    while room < documents:
        room *= 2
    borders = torch.full((room + 1,), batch * time, dtype=torch.int32, device=first.device)
    borders[:documents] = starts.nonzero().flatten()
    return borders


def _flash(q: Tensor, k: Tensor, v: Tensor, plan: _FlashPlan, dropout: float) -> Tensor:
    """The package flash-attn (Dao, arXiv:2307.08691); its causal mask is aligned with the last key."""
    import flash_attn  # not at the top: it is an extra, and only CUDA has it

    if plan.borders is not None:
        flat = flash_attn.flash_attn_varlen_func(
            q.flatten(0, 1),
            k.flatten(0, 1),
            v.flatten(0, 1),
            plan.borders,
            plan.borders,
            plan.longest,
            plan.longest,
            dropout_p=dropout,
            causal=True,
        )
        return flat.view(q.shape)
    if plan.key_counts is not None:
        return flash_attn.flash_attn_with_kvcache(
            q, k, v, cache_seqlens=plan.key_counts, cache_leftpad=plan.key_starts, causal=True
        )
    return flash_attn.flash_attn_func(q, k, v, dropout_p=dropout, causal=True)


BACKENDS = {
    "manual": Backend(View.mask, _manual),
    "sdpa": Backend(_plan_sdpa, _sdpa),
    "flash": Backend(_plan_flash, _flash),
}
ATTENTION_CHOICES = (*BACKENDS, "auto")
