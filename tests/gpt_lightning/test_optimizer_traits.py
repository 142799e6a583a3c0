"""What the registry says of an optimizer is what the optimizer is."""

from functools import partial
from inspect import signature
from typing import Any

import pytest
import torch

from gpt_lightning.model import GPT
from gpt_lightning.optim import MuonAdamW, OptimizerTraits, optimizer_traits, parameter_groups
from gpt_lightning.optim.optimizer_traits import ADAMW
from running.config.allowed_targets import resolve_optimizer
from running.config.compose import compose_config, group_choices
from running.config.run_config import RunConfig
from running.training.builders import build_parameter_groups
from tests.planned_models import small_config, small_model


def shipped(name: str) -> partial[Any]:
    return resolve_optimizer(compose_config("train", [f"optimizer={name}"])["optimizer"])


def state_bytes(make_optimizer: partial[Any], traits: OptimizerTraits) -> int:
    """Of all moments after a real step on a small model."""
    model = GPT(small_config())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer = make_optimizer(parameter_groups(model, muon=traits.muon))
    optimizer.step()
    return sum(
        value.nbytes
        for state in optimizer.state.values()
        for key, value in state.items()
        # bitsandbytes shares its tables of quantiles among all parameters
        if isinstance(value, torch.Tensor) and key != "step" and "qmap" not in key
    )


@pytest.mark.parametrize("name", group_choices("optimizer"))
def test_every_optimizer_that_ships_has_an_entry_that_is_true(name: str) -> None:
    make_optimizer = shipped(name)
    traits = optimizer_traits(make_optimizer)
    assert not isinstance(traits.state, partial)  # it is declared and not measured
    assert traits.fused == ("fused" in signature(make_optimizer.func).parameters)
    assert traits.verify_tolerance == (1e-3 if name == "muon" else 1e-5)
    groups = parameter_groups(small_model(), muon=traits.muon)
    foretold = sum(traits.state(p, group).n_bytes for group in groups for p in group["params"])
    assert foretold == state_bytes(make_optimizer, traits)


def test_muon_alone_groups_the_matrices_of_the_blocks() -> None:
    for name, n_groups in (("adamw", 2), ("muon", 4)):
        make_groups = build_parameter_groups(RunConfig.of(compose_config("train", [f"optimizer={name}"])))
        assert len(make_groups(small_model())) == n_groups


@pytest.mark.parametrize(
    ("optimizer", "moments"),
    [
        (partial(torch.optim.SGD, lr=0.1), 0),
        (partial(torch.optim.SGD, lr=0.1, momentum=0.9), 1),
        (partial(torch.optim.Adamax, lr=0.1), 2),
    ],
    ids=["SGD", "SGD with momentum", "Adamax"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_state_of_any_other_optimizer_is_measured(
    optimizer: partial[Any], moments: int, dtype: torch.dtype
) -> None:
    traits = optimizer_traits(optimizer)
    assert not traits.muon
    for shape in ((1000, 768), (50_000,), (3,)):
        parameter = torch.empty(shape, dtype=dtype, device="meta")
        assert traits.state(parameter, {}).n_bytes == moments * parameter.nbytes


def test_an_optimizer_that_cannot_make_a_trial_step_is_named() -> None:
    traits = optimizer_traits(partial(torch.optim.LBFGS, lr=0.1))
    with pytest.raises(ValueError, match="the size of LBFGS's state is unknown, because a trial step on a parameter"):
        traits.state(torch.empty(2, 2, device="meta"), {})


def test_only_what_is_known_to_is_taken_to_work_on_sharded_weights() -> None:
    class Mine(torch.optim.SGD):
        """Of no package that is known."""

    assert optimizer_traits(partial(torch.optim.SGD, lr=0.1)).shardable
    assert not optimizer_traits(partial(Mine, lr=0.1)).shardable
    assert not optimizer_traits(shipped("adamw_8bit")).shardable
    assert ADAMW.shardable
    assert MuonAdamW.traits.shardable
