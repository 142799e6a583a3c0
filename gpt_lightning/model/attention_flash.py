"""Flash attention (Dao, arXiv:2307.08691): the package flash-attn, and torch's own kernel where documents are kept apart."""

import inspect
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gpt_lightning.model.attention_mask import AttentionMask


class FlashPlan(NamedTuple):
    """Which of flash-attn's three functions is called, and with what."""

    borders: Tensor | None = None
    """(documents + 1,) int32, where each document begins in the flattened batch; None: no documents."""
    key_counts: Tensor | None = None
    """(batch,) int32, where the keys that the last query of each sequence sees end; None: it sees all."""
    key_starts: Tensor | None = None
    """(batch,) int32, where they begin; None: at the first."""


def plan_flash(view: AttentionMask, device: torch.device) -> FlashPlan:
    """What the package needs to know of a view."""
    if view.has_documents:
        return FlashPlan(borders=find_document_borders(view))
    key_counts = None if view.last is None else (view.last[:, -1] + 1).int()
    if view.first is None:
        return FlashPlan(key_counts=key_counts)
    if key_counts is None:
        key_counts = torch.full((len(view.first),), view.n_keys, dtype=torch.int32, device=device)
    return FlashPlan(key_counts=key_counts, key_starts=view.first[:, 0].int())


def find_document_borders(view: AttentionMask) -> Tensor:
    """Borders of a view's documents. Where the loader has not found them already, the device is waited for."""
    if view.borders is not None:
        return view.borders
    assert view.first is not None
    batch, time = view.first.shape
    starts = (view.first == torch.arange(time, device=view.first.device)).flatten().nonzero().flatten()
    return torch.cat([starts, starts.new_full((1,), batch * time)]).int()


def attend_flash(q: Tensor, k: Tensor, v: Tensor, plan: FlashPlan, dropout: float) -> Tensor:
    """The package flash-attn; its causal mask is aligned with the last key."""
    import flash_attn  # not at the top: it is an extra, and only CUDA has it

    deterministic = torch.are_deterministic_algorithms_enabled()  # torch's own kernels ask that themselves
    if plan.borders is not None:
        time = q.shape[1]
        flat = flash_attn.flash_attn_varlen_func(
            q.flatten(0, 1),
            k.flatten(0, 1),
            v.flatten(0, 1),
            plan.borders,
            plan.borders,
            time,
            time,
            dropout_p=dropout,
            causal=True,
            deterministic=deterministic,
        )
        return flat.view(q.shape)
    if plan.key_counts is not None:
        return flash_attn.flash_attn_with_kvcache(
            q, k, v, cache_seqlens=plan.key_counts, cache_leftpad=plan.key_starts, causal=True
        )
    return flash_attn.flash_attn_func(q, k, v, dropout_p=dropout, causal=True, deterministic=deterministic)


class DocumentsPlan(NamedTuple):
    """What torch's flash kernel needs to know of documents that are kept apart."""

    borders: Tensor
    """(documents + 1,) int32, where each begins in the flattened batch."""
    options: dict[str, Any]
    """torch 2.11 groups queries unasked, later ones want to be asked."""


def plan_documents(view: AttentionMask) -> DocumentsPlan:
    """Of a view that has documents."""
    from torch.nn.attention.varlen import varlen_attn

    asks = "enable_gqa" in inspect.signature(varlen_attn).parameters
    return DocumentsPlan(find_document_borders(view), {"enable_gqa": True} if asks else {})


def attend_documents(q: Tensor, k: Tensor, v: Tensor, plan: DocumentsPlan) -> Tensor:
    """torch's flash kernel on the flattened batch, each document by itself; it has no dropout."""
    from torch.nn.attention.varlen import varlen_attn

    time = q.shape[1]
    flat = varlen_attn(
        q.flatten(0, 1),
        k.flatten(0, 1),
        v.flatten(0, 1),
        plan.borders,
        plan.borders,
        time,
        time,
        window_size=(-1, 0),  # causal
        **plan.options,
    )
    assert isinstance(flat, Tensor)
    return flat.view(q.shape)
