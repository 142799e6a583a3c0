"""Flash attention (Dao, arXiv:2307.08691): the package flash-attn, and torch's own kernel for separate documents."""

import inspect
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gpt_lightning.model.attention_mask import AttentionMask


class FlashPlan(NamedTuple):
    """Arguments that determine which of flash-attn's three functions is called."""

    borders: Tensor | None = None
    """(documents + 1,) int32, the start of each document in the flattened batch; None: documents are not separated."""
    key_counts: Tensor | None = None
    """(batch,) int32, the number of keys that the last query of each sequence attends to; None: all."""
    key_starts: Tensor | None = None
    """(batch,) int32, the first of these keys; None: key 0."""


def plan_flash(view: AttentionMask, device: torch.device) -> FlashPlan:
    """Make the plan for the package flash-attn."""
    if view.has_documents:
        return FlashPlan(borders=find_document_borders(view))
    key_counts = None if view.last is None else (view.last[:, -1] + 1).int()
    if view.first is None:
        return FlashPlan(key_counts=key_counts)
    if key_counts is None:
        key_counts = torch.full((len(view.first),), view.n_keys, dtype=torch.int32, device=device)
    return FlashPlan(key_counts=key_counts, key_starts=view.first[:, 0].int())


def find_document_borders(view: AttentionMask) -> Tensor:
    """Return the borders of a mask's documents. If the data loader has not computed the borders, this function waits
    for the device.
    """
    if view.borders is not None:
        return view.borders
    assert view.first is not None
    batch, time = view.first.shape
    starts = (view.first == torch.arange(time, device=view.first.device)).flatten().nonzero().flatten()
    return torch.cat([starts, starts.new_full((1,), batch * time)]).int()


def attend_flash(q: Tensor, k: Tensor, v: Tensor, plan: FlashPlan, dropout: float) -> Tensor:
    """Compute attention with the package flash-attn, whose causal mask is aligned with the last key."""
    import flash_attn  # imported here because it is an optional dependency that exists only for CUDA

    deterministic = torch.are_deterministic_algorithms_enabled()  # flash-attn does not check this itself
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
    """Arguments of torch's flash kernel for separate documents."""

    borders: Tensor
    """(documents + 1,) int32, the start of each document in the flattened batch."""
    options: dict[str, Any]
    """enable_gqa for torch versions that have this option. torch 2.11 groups queries without the option."""


def plan_documents(view: AttentionMask) -> DocumentsPlan:
    """Make the plan for a mask with separate documents."""
    from torch.nn.attention.varlen import varlen_attn

    asks = "enable_gqa" in inspect.signature(varlen_attn).parameters
    return DocumentsPlan(find_document_borders(view), {"enable_gqa": True} if asks else {})


def attend_documents(q: Tensor, k: Tensor, v: Tensor, plan: DocumentsPlan) -> Tensor:
    """Compute attention with torch's flash kernel on the flattened batch, each document separately, without dropout."""
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
