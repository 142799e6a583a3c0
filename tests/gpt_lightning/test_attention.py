"""The backends against each other and against fp64; whole sequences against cached chunks; documents against themselves."""

import math
import sys
from itertools import pairwise
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gpt_lightning.model import attention_selection
from gpt_lightning.model.attention_mask import AttentionMask
from gpt_lightning.model.part_registry import BACKENDS
from tests.gpt_lightning.tiny_models import FAMILIES, build, sequences

EOT = 7
APART = {"attend_across_documents": False, "eot_id": EOT}


def brute_force(q: Tensor, k: Tensor, v: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """Attention query by query in fp64, (batch, time, heads, d_head); first and last are (batch, time)."""
    q, k, v = q.double(), k.double(), v.double()
    out = torch.zeros_like(q)
    group = q.shape[2] // k.shape[2]
    for b in range(q.shape[0]):
        for t in range(q.shape[1]):
            for h in range(q.shape[2]):
                keys = slice(int(first[b, t]), int(last[b, t]) + 1)
                scores = k[b, keys, h // group] @ q[b, t, h] / math.sqrt(q.shape[-1])
                out[b, t, h] = scores.softmax(0) @ v[b, keys, h // group]
    return out


def flash_attn_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout_p: float = 0.0,
    causal: bool = False,
    deterministic: bool = False,
) -> Tensor:
    assert causal
    assert deterministic == torch.are_deterministic_algorithms_enabled()
    batch, time, keys = q.shape[0], q.shape[1], k.shape[1]
    last = torch.arange(keys - time, keys).expand(batch, time)
    return brute_force(q, k, v, torch.zeros_like(last), last).to(q.dtype)


def flash_attn_varlen_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    causal: bool = False,
    deterministic: bool = False,
) -> Tensor:
    assert deterministic == torch.are_deterministic_algorithms_enabled()
    assert cu_seqlens_q.dtype == torch.int32
    assert torch.equal(cu_seqlens_q, cu_seqlens_k)
    assert cu_seqlens_q[0] == 0
    assert cu_seqlens_q[-1] == len(q)
    parts = [(start, end) for start, end in pairwise(cu_seqlens_q.tolist()) if start != end]
    assert max(end - start for start, end in parts) <= max_seqlen_q == max_seqlen_k
    return torch.cat(
        [
            flash_attn_func(*(x[None, a:b] for x in (q, k, v)), causal=causal, deterministic=deterministic)[0]
            for a, b in parts
        ]
    )


def flash_attn_with_kvcache(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cache_seqlens: Tensor | None = None,
    cache_leftpad: Tensor | None = None,
    causal: bool = False,
) -> Tensor:
    assert causal
    assert cache_seqlens is not None
    assert cache_seqlens.dtype == torch.int32
    time = q.shape[1]
    last = cache_seqlens[:, None] - time + torch.arange(time)
    first = torch.zeros_like(last) if cache_leftpad is None else cache_leftpad[:, None].expand_as(last)
    return brute_force(q, k, v, first, last).to(q.dtype)


@pytest.fixture
def flash_attn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in with flash-attn's three signatures and documented meaning, so that our side of the border can be checked."""

    module = ModuleType("flash_attn")
    for function in (flash_attn_func, flash_attn_varlen_func, flash_attn_with_kvcache):
        setattr(module, function.__name__, function)
    monkeypatch.setitem(sys.modules, "flash_attn", module)
    monkeypatch.setattr(attention_selection, "_hardware_obstacle", lambda *queries: None)


@pytest.fixture
def varlen_attn(monkeypatch: pytest.MonkeyPatch, flash_attn: None) -> None:
    """A stand-in with the signature and documented meaning of torch's varlen_attn, which runs on CUDA alone."""

    def attend(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        cu_seq_q: Tensor,
        cu_seq_k: Tensor,
        max_q: int,
        max_k: int,
        *,
        window_size: tuple[int, int] = (-1, -1),
        enable_gqa: bool = False,
    ) -> Tensor:
        assert window_size == (-1, 0)
        assert enable_gqa or query.shape[1] == key.shape[1]
        varlen: Tensor = sys.modules["flash_attn"].flash_attn_varlen_func(
            query,
            key,
            value,
            cu_seq_q,
            cu_seq_k,
            max_q,
            max_k,
            causal=True,
            deterministic=torch.are_deterministic_algorithms_enabled(),
        )
        return varlen

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", attend)


def documents(batch: int = 3, time: int = 16) -> tuple[Tensor, Tensor]:
    """Tokens with end-of-text ids in odd places, the first and two neighbours among them; their targets."""
    token_ids, targets, _ = sequences(batch, time)
    token_ids = torch.where(token_ids == EOT, EOT + 1, token_ids)
    for row, column in ((0, 0), (0, 5), (1, 3), (1, 4), (1, 15), (2, 9)):
        token_ids[row, column] = EOT
    return token_ids, targets


@pytest.mark.parametrize("apart", [False, True], ids=["across", "apart"])
@pytest.mark.usefixtures("flash_attn")
def test_flash_attn_is_told_of_determinism(apart: bool) -> None:
    token_ids, _ = documents()
    model = build(attention="flash", **APART if apart else {})
    torch.use_deterministic_algorithms(True)
    try:
        model(token_ids)
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("apart", [False, True], ids=["across", "apart"])
@pytest.mark.usefixtures("flash_attn")
def test_backends_agree_in_outputs_and_gradients(family: str, apart: bool) -> None:
    token_ids, targets = documents()
    results = []
    for backend in ("manual", "sdpa", "flash"):
        model = build(attention=backend, **FAMILIES[family] | (APART if apart else {}))
        logits = model(token_ids)
        F.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
        results.append([logits, *(p.grad for p in model.parameters())])
    for manual, *others in zip(*results, strict=True):
        for other in others:
            torch.testing.assert_close(other, manual, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", ["manual", "sdpa"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_kernels_are_as_exact_as_their_precision(backend: str, dtype: torch.dtype, kv_heads: int) -> None:
    generator = torch.Generator().manual_seed(3)
    q, k, v = (
        torch.randn(2, 9, heads, 8, generator=generator).to(dtype).requires_grad_() for heads in (4, kv_heads, kv_heads)
    )
    chosen = BACKENDS[backend]
    y = chosen.attend(q, k, v, chosen.plan(AttentionMask(9, 9), q.device), 0.0)
    upstream = torch.randn(y.shape, generator=generator).to(dtype)
    gradients = torch.autograd.grad(y, (q, k, v), upstream)
    exact_inputs = [x.detach().double().requires_grad_() for x in (q, k, v)]
    last = torch.arange(9).expand(2, 9)
    exact = brute_force(*exact_inputs, torch.zeros_like(last), last)
    exact_gradients = torch.autograd.grad(exact, exact_inputs, upstream.double())
    for got, expected in zip((y, *gradients), (exact, *exact_gradients), strict=True):
        assert got.dtype == dtype
        assert (got.double() - expected).norm() <= 2 * torch.finfo(dtype).eps * expected.norm()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("apart", [False, True], ids=["across", "apart"])
@pytest.mark.parametrize(
    ("backend", "chunks"),
    [
        ("manual", [1, 4, 2, 8, 1]),
        ("sdpa", [1, 4, 2, 8, 1]),
        ("sdpa", [7] + [1] * 9),
        ("flash", [7] + [1] * 9),
        ("flash", [1, 4, 2, 8, 1]),
    ],
)
@pytest.mark.usefixtures("flash_attn")
def test_cached_chunks_equal_the_whole(family: str, apart: bool, backend: str, chunks: list[int]) -> None:
    token_ids, _ = documents()
    model = build(attention=backend, **FAMILIES[family] | (APART if apart else {})).eval()
    whole = model(token_ids)
    cache = model.empty_cache(batch=3, room=16)
    parts = [model(chunk, cache) for chunk in token_ids.split(chunks, dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("apart", [False, True], ids=["across", "apart"])
@pytest.mark.parametrize("backend", ["manual", "sdpa", "flash"])
@pytest.mark.usefixtures("flash_attn")
def test_sequences_of_unequal_length_share_a_cache(family: str, apart: bool, backend: str) -> None:
    token_ids, _ = documents()
    model = build(attention=backend, **FAMILIES[family] | (APART if apart else {})).eval()
    whole = model(token_ids)
    cache, lengths = model.empty_cache(batch=3, room=16), [4, 9, 1]
    for row, length in enumerate(lengths):
        model(token_ids[row : row + 1, :length], cache.reopen(slice(row, row + 1)))
    for step in range(6):
        new = torch.stack([token_ids[row, length + step] for row, length in enumerate(lengths)])[:, None]
        expected = torch.stack([whole[row, length + step] for row, length in enumerate(lengths)])[:, None]
        torch.testing.assert_close(model(new, cache), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", ["manual", "sdpa", "flash"])
@pytest.mark.usefixtures("flash_attn")
def test_a_document_is_blind_to_the_one_before(backend: str) -> None:
    """Packed behind others, a document gives the logits that it gives alone (RoPE sees distances only)."""
    token_ids, _ = documents()
    model = build(attention=backend, **FAMILIES["llama"] | APART).eval()
    torch.testing.assert_close(model(token_ids)[0, 5:], model(token_ids[:1, 5:])[0], atol=1e-5, rtol=1e-5)
    open_model = build(attention=backend, **FAMILIES["llama"]).eval()
    assert (open_model(token_ids)[0, 5:] - open_model(token_ids[:1, 5:])[0]).abs().max() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("given", [False, True], ids=["derived", "given"])
@pytest.mark.usefixtures("varlen_attn")
def test_documents_apart_need_no_mask(family: str, given: bool) -> None:
    """torch's flash kernel on borders, which the loader gives, filled up by documents of no tokens, or the model finds."""
    token_ids, targets = documents()
    starts = (token_ids == EOT) | (torch.arange(16) == 0)
    borders = torch.full((20,), token_ids.numel(), dtype=torch.int32)
    borders[: starts.sum()] = starts.flatten().nonzero().flatten()
    results = []
    for backend in ("manual", "sdpa_flash"):
        model = build(attention=backend, **FAMILIES[family] | APART)
        loss = model.loss_sum(token_ids, targets, borders=borders if given and backend == "sdpa_flash" else None)
        loss.objective.backward()
        results.append([*loss, *(p.grad for p in model.parameters())])
    for manual, flash in zip(*results, strict=True):
        torch.testing.assert_close(flash, manual, atol=1e-4, rtol=1e-5)


@pytest.mark.usefixtures("flash_attn")
def test_a_model_that_trains_with_flash_writes_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples are written outside of autocast; flash-attn knows half precision alone."""

    def obstacle(name: str, device: torch.device, dtype: torch.dtype, d_head: int) -> str | None:
        return "only in half precision" if dtype == torch.float32 else None

    monkeypatch.setattr(attention_selection, "_hardware_obstacle", obstacle)
    calls = []
    kernel = sys.modules["flash_attn"].flash_attn_func
    monkeypatch.setattr(
        sys.modules["flash_attn"], "flash_attn_func", lambda *a, **k: (calls.append(1), kernel(*a, **k))[1]
    )
    token_ids, _ = documents()
    model = build(attention="flash")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(token_ids)
    assert len(calls) == 2  # one for each layer
    torch.testing.assert_close(model(token_ids), build(attention="sdpa")(token_ids))
    assert len(calls) == 2


@pytest.mark.parametrize("backend", ["manual", "sdpa"])
def test_dropout_acts_on_attention_weights_in_training_alone(backend: str) -> None:
    token_ids, _, _ = sequences()
    model = build(attention=backend, dropout=0.5)
    for block in model.blocks:
        block.dropout.p = 0.0
    model.dropout.p = 0.0
    assert not torch.equal(model(token_ids), model(token_ids))
    torch.testing.assert_close(model.eval()(token_ids), build(attention=backend).eval()(token_ids))
