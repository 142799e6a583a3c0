"""The loss head with each of its kernels against plain fp64: losses and gradients, with mask, soft cap and z-loss."""

from functools import partial
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu_day.attention import relative_error, short
from benchmarks.gpu_day.result_rows import Day
from gpt_lightning.model.loss_head import cross_entropy_sum
from gpt_lightning.model.triton_check import why_triton_is_unavailable

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "masked": {"masked": True},
    "capped, z-loss, masked": {"masked": True, "soft_cap": 15.0, "z_loss": 1e-3},
}


def run(day: Day) -> None:
    oracle = "cpu" if day.rehearse else day.device
    # on a GPU more tokens than one chunk
    size = {"tokens": 100, "d_model": 64, "vocab_size": 997} if day.rehearse else SIZE
    for kernel, dtype, (name, options) in product(("torch", "triton"), DTYPES, OPTIONS.items()):
        row = f"{kernel}, {short(dtype)}, {name}"
        obstacle = why_triton_is_unavailable(day.device) if kernel == "triton" else None
        if obstacle:
            day.skip(row, obstacle)
            continue
        settings: dict[str, Any] = {
            "kernel": kernel,
            "dtype": dtype,
            "device": day.device,
            "oracle": oracle,
            **size,
            **options,
        }
        day.check(row, partial(errors, **settings))


SIZE = {"tokens": 10_000, "d_model": 256, "vocab_size": 50304}


def errors(
    *,
    kernel: str,
    dtype: torch.dtype,
    device: str,
    oracle: str,
    tokens: int,
    d_model: int,
    vocab_size: int,
    masked: bool = False,
    soft_cap: float | None = None,
    z_loss: float = 0.0,
) -> dict[str, Any]:
    """Relative errors of the losses and of both gradients, and whether all are within the limit.

    Args:
        kernel: the loss kernel.
        dtype: dtype of hidden states and weight.
        device: cpu or cuda.
        oracle: device of the fp64 computation.
        tokens: number of hidden states.
        d_model: their width.
        vocab_size: rows of the weight.
        masked: whether every third token has no loss.
        soft_cap: soft cap of the logits; None: no cap.
        z_loss: factor of the z-loss.
    """
    generator = torch.Generator().manual_seed(tokens)
    x, weight = (torch.randn(n, d_model, generator=generator) for n in (tokens, vocab_size))
    # logits with a variance of about one; rounded first, so that both sides multiply the same numbers
    x, weight = x.to(device, dtype).float(), (weight / d_model**0.5).to(device, dtype).float()
    targets = torch.randint(0, vocab_size, (tokens,), generator=generator).to(device)
    mask = (torch.arange(tokens, device=device) % 3 > 0) if masked else None
    ours = x.clone().requires_grad_(), weight.clone().requires_grad_()
    with torch.autocast(device, dtype=dtype, enabled=dtype != torch.float32, cache_enabled=False):
        loss = cross_entropy_sum(*ours, targets, mask, soft_cap=soft_cap, z_loss=z_loss, kernel=kernel)
    loss.objective.backward()
    exact = x.to(oracle).double().requires_grad_(), weight.to(oracle).double().requires_grad_()
    mask = None if mask is None else mask.to(oracle)
    objective, nats = written_out(*exact, targets.to(oracle), mask, soft_cap, z_loss)
    objective.backward()
    found = {
        "objective": relative_error(loss.objective, objective),
        "nats": relative_error(loss.nats_of_tokens, nats),
        "dx": relative_error(ours[0].grad, exact[0].grad),
        "dweight": relative_error(ours[1].grad, exact[1].grad),
    }
    limit = (100 if dtype == torch.float32 else 3) * torch.finfo(dtype).eps
    return {"passed": all(error <= limit for error in found.values()), "limit": limit, **found}


def written_out(
    x: Tensor, weight: Tensor, targets: Tensor, mask: Tensor | None, soft_cap: float | None, z_loss: float
) -> tuple[Tensor, Tensor]:
    """(objective, nats of each token (tokens,)) from whole logits."""
    logits = x @ weight.T
    if soft_cap is not None:
        logits = soft_cap * torch.tanh(logits / soft_cap)
    nats = F.cross_entropy(logits, targets, reduction="none")
    objective = nats + z_loss * logits.logsumexp(-1).square()
    if mask is not None:
        nats, objective = nats * mask, objective * mask
    return objective.sum(), nats.detach()
