"""Every attention kernel against plain fp64: outputs, gradients, and dropout.

The fp64 result is computed on the CPU. Errors are relative and for the whole tensor: the norm of the difference divided
by the norm of the fp64 result. In half precision a product is rounded once, so a few epsilons of the dtype bound the
error; in fp32 the rounding of the sums counts.
"""

import math
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.gpu_day.result_rows import Day
from data_modules.sequence_reader import document_borders
from gpt_lightning.model.attention_mask import AttentionMask
from gpt_lightning.model.attention_selection import backend_obstacle
from gpt_lightning.model.part_registry import BACKENDS

EOT = 0
DROPOUT = 0.1
_SIGMAS = 5.0  # a correct kernel exceeds this once in two million times


class Case(NamedTuple):
    """One way to call a backend."""

    backend: str
    dtype: torch.dtype
    d_head: int
    kv_heads: int
    documents: bool

    def __str__(self) -> str:
        parts = [self.backend, short(self.dtype), f"heads of {self.d_head}"]
        parts += [f"{HEADS} queries to {self.kv_heads}"] if self.kv_heads < HEADS else []
        return ", ".join([*parts, *(["documents apart"] if self.documents else [])])


HEADS = 4
CASES = [
    Case(backend, dtype, d_head, kv_heads, documents)
    for backend, dtype, d_head, kv_heads, documents in product(
        BACKENDS, (torch.bfloat16, torch.float16, torch.float32), (64, 128), (HEADS, 1), (False, True)
    )
]


def run(day: Day) -> None:
    torch.backends.cuda.enable_cudnn_sdp(not day.rehearse)
    time = 64 if day.rehearse else 512
    for case in CASES:
        view = view_of(time, case.documents, day.device)[0]
        obstacle = backend_obstacle(case.backend, torch.device(day.device), case.dtype, case.d_head, view)
        if obstacle or (day.rehearse and case.backend == "sdpa_cudnn"):
            day.skip(str(case), obstacle or "a rehearsal has no cuDNN")
        else:
            day.check(str(case), partial(errors, case, time=time, device=day.device))
    for backend, dtype in product(BACKENDS, (torch.bfloat16, torch.float16)):
        name = f"{backend}, {short(dtype)}, dropout"
        obstacle = backend_obstacle(
            backend, torch.device(day.device), dtype, 64, AttentionMask(64, 64), dropout=DROPOUT
        )
        if obstacle or (day.rehearse and backend == "sdpa_cudnn"):
            day.skip(name, obstacle or "a rehearsal has no cuDNN")
        else:
            day.check(name, partial(dropped, backend, dtype, batch=64, device=day.device))


def errors(case: Case, *, time: int, device: str) -> dict[str, Any]:
    """Relative errors of the output and of the three gradients, and whether all are within the limit.

    Args:
        case: backend, dtype and shapes.
        time: sequence length.
        device: cpu or cuda.
    """
    view, first = view_of(time, case.documents, device)
    generator = torch.Generator().manual_seed(time + case.d_head)
    shapes = [(2, time, heads, case.d_head) for heads in (HEADS, case.kv_heads, case.kv_heads, HEADS)]
    *inputs, grad = (torch.randn(shape, generator=generator).to(device, case.dtype) for shape in shapes)
    backend = BACKENDS[case.backend]
    ours = tuple(x.detach().requires_grad_() for x in inputs)
    y = backend.attend(ours[0], ours[1], ours[2], backend.plan(view, torch.device(device)), 0.0)
    y.backward(grad)
    q, k, v = (x.cpu().double().detach().requires_grad_() for x in inputs)
    right = written_out(q, k, v, first)
    right.backward(grad.cpu().double())
    gradients = ((a.grad, b.grad) for a, b in zip(ours, (q, k, v), strict=True))
    pairs = zip(("output", "dq", "dk", "dv"), [(y, right), *gradients], strict=True)
    found = {name: relative_error(*pair) for name, pair in pairs}
    limit = (100 if case.dtype == torch.float32 else 3) * torch.finfo(case.dtype).eps
    return {"passed": all(error <= limit for error in found.values()), "limit": limit, **found}


def written_out(q: Tensor, k: Tensor, v: Tensor, first: Tensor) -> Tensor:
    """Softmax over the keys from `first` (batch, queries) to the query's position; (batch, time, heads, d_head)."""
    time, group = q.shape[1], q.shape[2] // k.shape[2]
    k, v = (x.repeat_interleave(group, dim=2) for x in (k, v))
    place = torch.arange(time, device=q.device)
    seen = (place <= place[:, None]) & (place >= first[:, :, None])
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.shape[-1])
    weights = scores.masked_fill(~seen[:, None], float("-inf")).softmax(-1)
    return torch.einsum("bhqk,bkhd->bqhd", weights, v)


def dropped(backend: str, dtype: torch.dtype, *, batch: int, device: str) -> dict[str, Any]:
    """Check dropout with equal weights times the identity: its rate, its scale, and what the gradient drops.

    Args:
        backend: name of the backend.
        dtype: dtype of queries, keys and values.
        batch: number of sequences.
        device: cpu or cuda.
    """
    time, heads = 64, HEADS
    q = torch.zeros(batch, time, heads, time, device=device, dtype=dtype)
    v = torch.eye(time, device=device, dtype=dtype)[None, :, None].repeat(batch, 1, heads, 1).requires_grad_()
    kind = BACKENDS[backend]
    y = kind.attend(
        q, q, v, kind.plan(AttentionMask(time, time), torch.device(device)), DROPOUT
    )  # (batch, query, head, key)
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    y.backward(grad)
    weights = y.detach().cpu().double()
    seen = torch.ones(time, time, dtype=torch.bool).tril()[None, :, None].expand_as(weights)
    n = batch * heads * time * (time + 1) // 2
    kept = ((weights > 0) & seen).sum().item() / n
    scaled = weights * torch.arange(1, time + 1)[None, :, None, None]
    mean = (scaled * seen).sum().item() / n
    sigma = math.sqrt(DROPOUT * (1 - DROPOUT) / n)
    assert v.grad is not None
    grad_error = relative_error(v.grad, torch.einsum("bqhk,bqhd->bkhd", weights, grad.cpu().double()))
    repeats = bool((weights[:, :, 0] > 0).eq(weights[:, :, 1] > 0).all())
    limit = 3 * torch.finfo(dtype).eps
    passed = (
        abs(kept - (1 - DROPOUT)) <= _SIGMAS * sigma
        and abs(mean - 1) <= _SIGMAS * sigma / (1 - DROPOUT) + limit
        and not (weights * ~seen).any()
        and not repeats
        and grad_error <= limit
    )
    return {"passed": passed, "kept": kept, "mean": mean, "sigma": sigma, "dv": grad_error, "heads_alike": repeats}


def view_of(time: int, documents: bool, device: str) -> tuple[AttentionMask, Tensor]:
    """Mask of two sequences with unequal documents, and the first key of each query, (2, time) on the CPU."""
    ids = torch.ones(2, time, dtype=torch.int64)
    if documents:
        ids[0, [3, 4, time // 2]] = EOT
        ids[1, time // 3] = EOT
    place = torch.arange(time)
    starts = torch.where((ids == EOT) | (place == 0), place, 0) if documents else torch.zeros_like(ids)
    first = starts.cummax(dim=1).values
    if not documents:
        return AttentionMask(time, time), first
    borders = torch.from_numpy(document_borders(ids.numpy(), EOT)).to(device)
    return AttentionMask(time, time, first=first.to(device), borders=borders), first


def relative_error(got: Tensor | None, right: Tensor | None) -> float:
    assert got is not None
    assert right is not None
    right = right.detach().double()
    return float((got.detach().to(right.device).double() - right).norm() / right.norm())


def short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
