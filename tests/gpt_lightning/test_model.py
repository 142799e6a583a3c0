"""The model against oracles: backends against each other, the loss head against plain cross-entropy."""

import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gpt_lightning.generation import generate
from gpt_lightning.model import GPT, GPTConfig, loss_head
from gpt_lightning.model.loss_head import cross_entropy_sum

GPT2 = {"norm": "layernorm", "feed_forward": "gelu_tanh", "position": "learned", "bias": True}
MODERN = {"norm": "rmsnorm", "feed_forward": "swiglu", "position": "rope", "bias": False, "tie_embeddings": False}


def build(**choices: object) -> GPT:
    torch.manual_seed(0)
    sizes = {"vocab_size": 97, "max_seq_len": 16, "d_model": 32, "n_layers": 2, "n_heads": 4, "d_ff": 48}
    return GPT(GPTConfig(**sizes | choices))  # type: ignore[arg-type]


def sequences(batch: int = 3, time: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 97, (batch, time + 1), generator=generator)
    return ids[:, :-1], ids[:, 1:], torch.rand(batch, time, generator=generator) < 0.4


@pytest.mark.parametrize("choices", [GPT2, MODERN], ids=["gpt2", "modern"])
def test_backends_agree_in_outputs_and_gradients(choices: dict[str, object]) -> None:
    token_ids, targets, _ = sequences()
    results = []
    for backend in ("manual", "sdpa"):
        model = build(attention=backend, **choices)
        logits = model(token_ids)
        F.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
        results.append([logits, *(p.grad for p in model.parameters())])
    for manual, sdpa in zip(*results, strict=True):
        torch.testing.assert_close(manual, sdpa, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("choices", "backend"), list(product([GPT2, MODERN], ["manual", "sdpa"])))
def test_no_token_sees_a_later_one(choices: dict[str, object], backend: str) -> None:
    model = build(attention=backend, **choices).eval()
    token_ids, _, _ = sequences()
    changed = token_ids.clone()
    changed[:, 9:] = (changed[:, 9:] + 1) % 97
    before, after = model(token_ids), model(changed)
    torch.testing.assert_close(before[:, :9], after[:, :9], atol=1e-6, rtol=0)
    assert (before[:, 9:] - after[:, 9:]).abs().max() > 1e-3


def test_rope_sees_distances_only() -> None:
    """Scores of queries and keys stay when both move by the same number of positions."""
    rotate = build(**MODERN).positions.rotate
    x = torch.randn(1, 1, 1, 8).expand(1, 1, 16, 8)
    q, k = rotate(x), rotate(x.flip(-1))
    scores = (q @ k.transpose(-1, -2))[0, 0]
    for offset in range(-5, 6):
        diagonal = scores.diagonal(offset)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("rows_at_once", [1, 5, 1000])
def test_loss_head_equals_cross_entropy(masked: bool, rows_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_head, "CHUNK_LOGITS", rows_at_once * 97)
    torch.manual_seed(2)
    x, weight = torch.randn(48, 16, dtype=torch.float64), torch.randn(97, 16, dtype=torch.float64)
    targets = torch.randint(0, 97, (48,))
    mask = torch.rand(48) < 0.3 if masked else None
    results = []
    for head in (cross_entropy_sum, _plain_cross_entropy_sum):
        inputs = x.clone().requires_grad_(), weight.clone().requires_grad_()
        loss = head(*inputs, targets, mask)
        (loss * 0.37).backward()  # an upstream factor, as accumulation and loss scaling make
        results.append((loss.double(), *(value.grad for value in inputs)))
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-6)


def _plain_cross_entropy_sum(x: Tensor, weight: Tensor, targets: Tensor, mask: Tensor | None) -> Tensor:
    nats = F.cross_entropy(x @ weight.T, targets, reduction="none")
    return nats.sum() if mask is None else nats[mask].sum()


@pytest.mark.parametrize("choices", [GPT2, MODERN], ids=["gpt2", "modern"])
def test_loss_is_the_mean_over_loss_bearing_tokens(choices: dict[str, object]) -> None:
    model = build(**choices)
    token_ids, targets, mask = sequences()
    expected = F.cross_entropy(model(token_ids)[mask], targets[mask])
    torch.testing.assert_close(model.loss(token_ids, targets, mask), expected)
    expected = F.cross_entropy(model(token_ids).flatten(0, 1), targets.flatten())
    torch.testing.assert_close(model.loss(token_ids, targets), expected)
    assert model.loss(token_ids, targets, torch.zeros_like(mask)) == 0  # nothing to learn, and no division by zero


def test_autocast_keeps_the_loss_in_fp32() -> None:
    model = build()
    token_ids, targets, _ = sequences()
    exact = model.loss(token_ids, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model.loss(token_ids, targets)
    rounded.backward()
    assert rounded.dtype == torch.float32
    assert abs(rounded - exact) < 0.02
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_an_untrained_model_guesses_evenly() -> None:
    token_ids, targets, _ = sequences(batch=64)
    assert abs(build().loss(token_ids, targets).item() - math.log(97)) < 0.05


def test_residual_projections_start_smaller() -> None:
    model = build(n_layers=8, d_model=64, d_ff=256)
    stds = {name: p.std().item() for name, p in model.named_parameters() if p.dim() == 2}
    for name, std in stds.items():
        expected = 0.02 / math.sqrt(16) if name.endswith(".out.weight") else 0.02
        assert std == pytest.approx(expected, rel=0.1), name


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"d_model": 30}, "model.d_model is 30, which model.n_heads=4 does not divide"),
        ({"n_layers": 0}, "model.n_layers is 0"),
        ({"dropout": 1.0}, "model.dropout is 1.0"),
        ({"norm": "batchnorm"}, "model.norm is 'batchnorm': it must be one of layernorm, rmsnorm"),
        ({"attention": "xformers"}, "model.attention is 'xformers'"),
    ],
)
def test_a_model_that_cannot_be_is_refused(choices: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**choices)


def test_more_tokens_than_the_model_sees_are_refused() -> None:
    with pytest.raises(ValueError, match="17 tokens are more than the model's max_seq_len 16"):
        build()(torch.zeros(1, 17, dtype=torch.long))


def test_generation() -> None:
    model = build()
    state = torch.random.get_rng_state()
    prompts = [[1, 2, 3], [4]]
    first = generate(model, prompts, 40, top_k=20, vocab_size=50, seed=3)
    assert first == generate(model, prompts, 40, top_k=20, vocab_size=50, seed=3)
    assert first != generate(model, prompts, 40, top_k=20, vocab_size=50, seed=4)
    assert [len(ids) for ids in first] == [40, 40]  # on past max_seq_len
    assert max(map(max, first)) < 50  # the padding of the vocabulary is never drawn
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.training  # as it was before
    greedy = generate(model, prompts, 5, temperature=0)
    assert greedy[0][0] == model.eval()(torch.tensor([prompts[0]]))[0, -1].argmax()
    assert generate(model, prompts, 5, temperature=0, stop_ids=[greedy[0][2]])[0] == greedy[0][:2]
    with pytest.raises(ValueError, match="a prompt needs at least one token"):
        generate(model, [[]], 1)
