"""A checkpoint of a fused optimizer goes on with one that is not, and the reverse, on any device."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt_lightning.optim import place_step_counters
from running.commands.train import train
from running.config.optimization_configs import OptimizerConfig
from running.training.builders import build_optimizer
from tests.run_files import as_if_killed, final_checkpoint, final_weights


@pytest.mark.parametrize(("fused", "device"), [(True, "meta"), (False, "cpu")])
def test_counts_lie_where_the_step_reads_them(fused: bool, device: str) -> None:
    """The device "meta" stands for CUDA."""
    parameter = torch.nn.Parameter(torch.zeros(3, device="meta"))
    optimizer = torch.optim.AdamW([parameter])
    optimizer.param_groups[0]["fused"] = fused
    optimizer.state[parameter]["step"] = torch.tensor(7.0)
    place_step_counters(optimizer)
    assert optimizer.state[parameter]["step"].device.type == device


@pytest.mark.parametrize("first", ["true", "false"])
def test_a_run_goes_on_with_the_other_kind_of_step(
    first: str, tiny_config: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    second = {"true": "false", "false": "true"}[first]
    train(tiny_config("name=run", "trainer.precision=32-true", f"optimizer.fused={first}"))
    run = as_if_killed(tmp_path / "runs" / "run", tmp_path / "other", after=8)
    train(tiny_config("name=run", f"runs_dir={run.parent}", "trainer.precision=32-true", f"optimizer.fused={second}"))
    state = final_checkpoint(run)["optimizer_states"][0]["state"]
    assert {float(of_parameter["step"]) for of_parameter in state.values()} == {12.0}
    straight = final_weights(tmp_path / "runs" / "run")
    for name, weight in final_weights(run).items():
        torch.testing.assert_close(weight, straight[name], atol=1e-5, rtol=1e-4)


def test_fp16_takes_torchs_own_choice_and_no_fused_step(tiny_config: Callable[..., dict[str, Any]]) -> None:
    """`fused=False` would be a loop over the parameters; left open, torch takes its foreach step on CUDA."""
    parameters = [{"params": [torch.nn.Parameter(torch.zeros(2))]}]
    chosen = {
        kind: build_optimizer(OptimizerConfig.of(tiny_config()["optimizer"]), kind)(parameters).defaults
        for kind in ("16-mixed", "bf16-mixed")
    }
    assert (chosen["16-mixed"]["fused"], chosen["16-mixed"]["foreach"]) == (None, None)
    assert chosen["bf16-mixed"]["fused"] is True
