"""What holds for every GPT: causality, losses, sizes, initialisation."""

import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F

from gpt_lightning.model import cpu_linear
from gpt_lightning.model.cpu_linear import FastLinear
from gpt_lightning.model.positions import rotate
from tests.gpt_lightning.tiny_models import FAMILIES, LLAMA, build, sequences


@pytest.mark.parametrize(("choices", "backend"), list(product(FAMILIES.values(), ["manual", "sdpa"])))
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
    rotation = build(**LLAMA).positions.rotation(slice(0, 16))
    x = torch.randn(1, 1, 1, 8).expand(1, 16, 1, 8)
    q, k = rotate(x, rotation), rotate(x.flip(-1), rotation)
    scores = q[0, :, 0] @ k[0, :, 0].T
    for offset in range(-5, 6):
        diagonal = scores.diagonal(offset)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("choices", FAMILIES.values(), ids=FAMILIES)
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


@pytest.mark.parametrize(("residual_init", "residual_std"), [("scaled", 0.02 / 4), ("plain", 0.02), ("zero", 0.0)])
def test_residual_projections_start_as_named(residual_init: str, residual_std: float) -> None:
    model = build(n_layers=8, d_model=64, d_ff=256, residual_init=residual_init)
    stds = {name: p.std().item() for name, p in model.named_parameters() if p.dim() == 2}
    for name, std in stds.items():
        expected = residual_std if name.endswith(".out.weight") else 0.02
        assert std == pytest.approx(expected, rel=0.1), name


def test_z_loss_is_trained_on_and_not_reported() -> None:
    token_ids, targets, mask = sequences()
    with_z, without = build(z_loss=1e-2), build()
    assert with_z.loss(token_ids, targets, mask) > without.loss(token_ids, targets, mask)
    sums = [model.loss_sum(token_ids, targets, mask) for model in (with_z, without)]
    assert sums[0].nats == sums[1].nats == sums[1].objective


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_recomputed_changes_no_bit_and_is_not_kept(family: str) -> None:
    """Dropout included; of each block its input stays, and what all blocks share."""
    token_ids, targets, mask = sequences()
    gradients, kept = [], []
    for recompute in (False, True):
        model = build(n_layers=4, dropout=0.2, **FAMILIES[family])
        model.recompute = recompute
        storages: dict[int, int] = {}

        def keep(x: torch.Tensor, storages: dict[int, int] = storages) -> torch.Tensor:
            storages[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        torch.manual_seed(3)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            loss = model.loss(token_ids, targets, mask)
        loss.backward()
        gradients.append([loss, *(p.grad for p in model.parameters())])
        kept.append(sum(storages.values()))
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))
    assert kept[1] < 0.3 * kept[0]


def test_logits_are_capped() -> None:
    token_ids, _, _ = sequences()
    model = build(logit_soft_cap=0.1)
    assert model(token_ids).abs().max() < 0.1 < build()(token_ids).abs().max()


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"d_model": 30}, "model.d_model is 30: it must be a multiple of model.n_heads=4"),
        ({"n_layers": 0}, "model.n_layers is 0"),
        ({"dropout": 1.0}, "model.dropout is 1.0"),
        ({"norm": "batchnorm"}, "model.norm is 'batchnorm': it must be one of layernorm, rmsnorm"),
        ({"attention": "xformers"}, "model.attention is 'xformers'"),
        ({"n_kv_heads": 3}, "model.n_heads is 4: it must be a multiple of model.n_kv_heads=3"),
        ({"n_kv_heads": 0}, "model.n_kv_heads is 0"),
        ({"logit_soft_cap": 0}, "model.logit_soft_cap is 0: it must be above 0, or null"),
        ({"z_loss": -1}, "model.z_loss is -1"),
        ({"attend_across_documents": False}, "model.eot_id is null: it must be the end-of-text id"),
    ],
)
def test_a_model_that_cannot_be_is_refused(choices: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**choices)


def test_more_tokens_than_the_model_sees_are_refused() -> None:
    with pytest.raises(ValueError, match="the input has 17 tokens: it must have at most max_seq_len=16"):
        build()(torch.zeros(1, 17, dtype=torch.long))


@pytest.mark.parametrize("shape", [(1, 1, 600), (1, 600), (600,), (2, 3, 600), (5, 600)])
@pytest.mark.parametrize("d_out", [500, 501, 503])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("cores", [1, 2, 3])
def test_fast_products_are_those_of_torch(
    shape: tuple[int, ...], d_out: int, bias: bool, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    layer, x = FastLinear(600, d_out, bias=bias), torch.randn(shape)
    assert layer.weight.numel() > cpu_linear.SMALL
    expected = F.linear(x, layer.weight, layer.bias)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), expected.detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(layer(x), expected, atol=0, rtol=0)  # with gradients, torch's own


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", FAMILIES)
def test_reading_without_gradients_changes_no_number(family: str, dtype: torch.dtype | None) -> None:
    """The fast paths outside of autograd keep the precision of the plain ones, also where activations are large."""
    model = build(**FAMILIES[family]).eval()
    with torch.no_grad():
        model.embedding.weight.mul_(1000)
    token_ids, _, _ = sequences()
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        expected = model(token_ids)
        with torch.no_grad():
            got = model(token_ids)
    tolerance = 1e-5 if dtype is None else torch.finfo(dtype).eps
    assert expected.isfinite().all()
    assert (got - expected).float().norm() <= tolerance * expected.float().norm()


def test_rope_is_never_rounded() -> None:
    model = build(**LLAMA)
    exact = model.positions.rotation(slice(0, 16))
    for cast in (model.bfloat16, model.half, model.float):
        assert all(torch.equal(a, b) for a, b in zip(cast().positions.rotation(slice(0, 16)), exact, strict=True))
