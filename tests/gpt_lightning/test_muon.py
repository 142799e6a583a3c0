"""Muon and AdamW as one optimizer: what torch's two would do, on the parameters that each is for."""

import gc
import io
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils._python_dispatch import TorchDispatchMode

from gpt_lightning.model import GPT, GPTConfig
from gpt_lightning.optim import MuonAdamW, apply_lr_multipliers_once, muon, parameter_groups
from running.config.compose import compose_config, group_choices
from tests.gpt_lightning.tiny_models import FAMILIES, build, sequences

LR, DECAY, STEPS = 3e-3, 0.1, 6
SWIGLU_AND_GROUPED_QUERIES = FAMILIES["llama"] | {"n_kv_heads": 2}
MODELS = FAMILIES | {"grouped": SWIGLU_AND_GROUPED_QUERIES}


def muon_of(model: GPT, **options: Any) -> MuonAdamW:
    return MuonAdamW(parameter_groups(model, muon=True), lr=LR, weight_decay=DECAY, **options)


class Calls(TorchDispatchMode):
    """Counts the operations of torch by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func.name().partition(".")[0]] += 1
        return func(*args, **(kwargs or {}))


def is_hidden(name: str, parameter: Tensor) -> bool:
    return name.startswith("blocks.") and parameter.dim() == 2


def gradients(model: GPT) -> Iterator[dict[str, Tensor]]:
    """Of each step; those of the values are much larger than those of the queries and keys that they are stacked with."""
    generator = torch.Generator().manual_seed(2)
    while True:
        step = {name: torch.randn(p.shape, generator=generator) for name, p in model.named_parameters()}
        for name in step:
            if name.endswith("qkv.weight"):
                step[name][-8:] *= 100
        yield step


def rows_of(name: str, config: GPTConfig) -> list[int]:
    """The matrices that are stacked in a weight, by the model's own formulas."""
    if name.endswith("qkv.weight"):
        return [config.d_model, config.kv_heads * config.d_head, config.kv_heads * config.d_head]
    return [config.d_ff, config.d_ff] if name.endswith("gate_up.weight") else []


@pytest.mark.parametrize("batch", [1, 2**12, muon.BATCH], ids="batch={}".format)
@pytest.mark.parametrize(
    ("fused", "dtype"), [(False, torch.float32), (True, torch.float32), (True, torch.bfloat16)], ids=str
)
@pytest.mark.parametrize("choices", MODELS.values(), ids=MODELS)
def test_it_is_torchs_two_to_the_last_bit(
    choices: dict[str, Any], fused: bool, dtype: torch.dtype, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a schedule, and a step that is left out; the oracle has every matrix in a parameter of its own.

    Weights in bf16 differ by its rounding: on a CPU torch rounds once more where it adds the transpose of a matrix.
    """
    monkeypatch.setattr(muon, "BATCH", batch)
    model = build(**choices).to(dtype)
    ours = muon_of(model, fused=fused)
    parts = {
        name: [nn.Parameter(part.detach().clone()) for part in p.split(rows_of(name, model.config) or len(p))]
        for name, p in model.named_parameters()
    }
    hidden = [part for name, p in model.named_parameters() if is_hidden(name, p) for part in parts[name]]
    rest = [parts[name][0] for name, p in model.named_parameters() if not is_hidden(name, p)]
    theirs: list[torch.optim.Optimizer] = [
        torch.optim.Muon(hidden, lr=LR, weight_decay=DECAY, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(
            [
                {"params": [p for p in rest if p.dim() == 2]},
                {"params": [p for p in rest if p.dim() < 2], "weight_decay": 0.0},
            ],
            lr=LR,
            betas=(0.9, 0.95),
            weight_decay=DECAY,
            fused=fused,
        ),
    ]
    schedules = [LambdaLR(optimizer, lambda step: 1 / (1 + step)) for optimizer in (ours, *theirs)]
    for step, of_step in zip(range(STEPS), gradients(model), strict=False):
        for name, parameter in model.named_parameters():
            of_step[name] = of_step[name].to(dtype)
            pieces = of_step[name].split([len(part) for part in parts[name]])
            parameter.grad = None if step == 3 else of_step[name]
            for part, piece in zip(parts[name], pieces, strict=True):
                part.grad = None if step == 3 else piece.clone()
        for optimizer in (ours, *theirs):
            optimizer.step()
        for schedule in schedules:
            schedule.step()
        for name, parameter in model.named_parameters():
            tolerance = {"rtol": 0.0, "atol": 0.0} if dtype == torch.float32 else {"rtol": 2**-7, "atol": 1e-4}
            torch.testing.assert_close(parameter.detach(), torch.cat(parts[name]).detach(), **tolerance)


@pytest.mark.parametrize(("choices", "n_shapes"), [(FAMILIES["gpt2"], 3), (SWIGLU_AND_GROUPED_QUERIES, 5)], ids=str)
def test_matrices_of_a_shape_share_their_products(choices: dict[str, Any], n_shapes: int) -> None:
    """However many layers there are: three products in each of five iterations. A transpose has the same shape.

    GPT-2 has three shapes: stacked queries, keys and values; the projection that follows them; both of the feed-forward. In
    the other model keys and values are smaller than queries, gate and up stand in a group of their own.
    """
    for n_layers in (1, 3):
        model = build(n_layers=n_layers, **choices)
        for name, gradient in next(gradients(model)).items():
            model.get_parameter(name).grad = gradient
        with Calls() as calls:
            muon_of(model).step()
        products = {name: count for name, count in calls.counts.items() if "mm" in name}
        assert products == {"aten::bmm": 5 * n_shapes, "aten::baddbmm": 10 * n_shapes}


@pytest.mark.parametrize("choices", MODELS.values(), ids=MODELS)
def test_each_stacked_matrix_gets_an_orthogonal_update(choices: dict[str, Any]) -> None:
    """Of about 0.2 lr in the root mean square, as torch's documentation says of AdamW's; whatever stands beside it."""
    model = build(**choices)
    optimizer = muon_of(model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for group in optimizer.param_groups:
        group["weight_decay"] = 0.0
    of_step = next(gradients(model))
    for name, parameter in model.named_parameters():
        parameter.grad = of_step[name]
    optimizer.step()
    for name, parameter in model.named_parameters():
        if is_hidden(name, parameter):
            moved = parameter.detach() - before[name]
            for update in moved.split(rows_of(name, model.config) or len(moved)):
                singular = torch.linalg.svdvals(update) / (0.2 * LR * max(update.shape) ** 0.5)
                assert singular.median() > 0.6, name  # a square matrix has a few that five iterations do not bring up
                assert singular.max() < 1.4, name
                assert update.square().mean().sqrt() == pytest.approx(0.2 * LR, rel=0.25)


@pytest.mark.parametrize("options", [{}, {"muon": True}, {"base_width": 64}, {"muon": True, "base_width": 64}], ids=str)
@pytest.mark.parametrize("name", group_choices("model"))
def test_the_groups_of_every_model_hold_each_parameter_once(name: str, options: dict[str, Any]) -> None:
    config = compose_config("train", [f"model={name}", "model.n_layers=2", "tokenizer=gpt2"])
    with torch.device("meta"):
        model = GPT(GPTConfig(**config["model"], eot_id=0))
    groups = parameter_groups(model, **options)
    grouped = {parameter: group for group in groups for parameter in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(grouped) == len(list(model.parameters()))
    for called, parameter in model.named_parameters():
        group = grouped[parameter]
        hidden = is_hidden(called, parameter)
        assert group.get("muon", False) == (hidden and "muon" in options)
        assert ("lr_multiplier" in group) == (hidden and "base_width" in options)
        assert group.get("stacked", []) == (rows_of(called, model.config) if "muon" in options else [])
        assert group.get("weight_decay") == (0.0 if parameter.dim() < 2 else None)
    assert groups[0]["params"][0] is model.embedding.weight  # whose rate is that of the log
    assert "lr_multiplier" not in groups[0]


def test_without_options_the_groups_are_two() -> None:
    """As they always were: a run that is under way goes on."""
    model = build()
    matrices, vectors = parameter_groups(model)
    assert matrices == {"params": [p for p in model.parameters() if p.dim() >= 2]}
    assert vectors == {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0}


@pytest.mark.parametrize("options", [{}, {"fused": True}], ids=str)
def test_what_it_remembers_goes_through_a_file(options: dict[str, Any]) -> None:
    def trained(model: GPT, optimizer: MuonAdamW, *steps: int) -> None:
        for step in steps:
            ids, targets, _ = sequences()
            loss = model.loss(ids.roll(step, 0), targets.roll(step, 0))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    straight = build(**SWIGLU_AND_GROUPED_QUERIES)
    trained(straight, muon_of(straight, **options), *range(6))
    first = build(**SWIGLU_AND_GROUPED_QUERIES)
    optimizer = muon_of(first, **options)
    trained(first, optimizer, *range(3))
    file = io.BytesIO()
    torch.save({"model": first.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    content = torch.load(file, weights_only=True)
    second = build(**SWIGLU_AND_GROUPED_QUERIES)
    second.load_state_dict(content["model"])
    optimizer = muon_of(second, **options)
    optimizer.load_state_dict(content["optimizer"])
    trained(second, optimizer, *range(3, 6))
    assert all(map(torch.equal, straight.parameters(), second.parameters()))


def test_nothing_keeps_the_gradients_of_a_step() -> None:
    model = build()
    optimizer = muon_of(model)
    model.loss(*sequences()).backward()
    optimizer.step()
    optimizer.zero_grad()
    tensors = [found for found in gc.get_objects() if type(found) is Tensor]
    assert not [tensor for tensor in tensors if tensor.is_leaf and tensor.grad is not None]


@pytest.mark.parametrize(("muon", "multiplier"), [(False, 0.25), (True, 0.5)])
def test_a_wider_model_moves_its_matrices_less(muon: bool, multiplier: float) -> None:
    """And by as much from step to step as without: decay is lr times weight_decay."""
    make: Callable[..., torch.optim.Optimizer] = MuonAdamW if muon else torch.optim.AdamW
    model = build(d_model=32)
    optimizer = make(parameter_groups(model, muon=muon, base_width=8), lr=LR, weight_decay=DECAY)
    apply_lr_multipliers_once(optimizer)
    for group in optimizer.param_groups:
        hidden = "lr_multiplier" in group
        assert group["lr"] == LR * (multiplier if hidden else 1)
        if group["weight_decay"]:
            assert group["lr"] * group["weight_decay"] == pytest.approx(LR * DECAY, rel=1e-15)
