"""Runs with Muon, a plateau and rates that follow the width: exact and durable as any other."""

from pathlib import Path
from typing import Any

import pytest
import torch

from gpt_lightning.optim import learning_rate_schedule
from running.commands.train import train
from running.config.compose import compose_config
from tests.conftest import TINY, composed, start
from tests.run_files import (
    as_if_killed,
    assert_same_rows,
    assert_same_state,
    final_checkpoint,
    final_weights,
    metrics,
    same_bits,
)

STEPS = 12  # of TINY
RUN = [
    *TINY,
    "name=run",
    "optimizer=muon",
    "schedule=wsd",
    "schedule.decay_share=0.5",
    "base_width=8",  # a quarter of the model's
    "model.n_kv_heads=1",
    "trainer.precision=32-true",
    "trainer.accelerator=cpu",
]


def overrides(data_dir: Path, runs: Path, *more: str) -> list[str]:
    return [*RUN, f"data_dir={data_dir}", f"runs_dir={runs}", *more]


def config_of(data_dir: Path, runs: Path, *more: str) -> dict[str, Any]:
    return composed(overrides(data_dir, runs, *more))


@pytest.fixture(scope="module")
def straight(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 steps in one go, without dropout, which follows the way a global batch is cut."""
    runs = tmp_path_factory.mktemp("straight")
    train(config_of(tiny_data, runs, "model.dropout=0"))
    return runs / "run"


def assert_near(run: Path, straight: Path) -> None:
    """Equal up to rounding. Muon's bf16 iterations round an update by 2^-8; over eight steps at a rate of 1e-3 these add up.

    A wrong update would differ by the rate itself.
    """
    assert_same_rows(metrics(run), metrics(straight), rel=1e-4)
    for name, ours in final_weights(straight).items():
        torch.testing.assert_close(final_weights(run)[name], ours, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("after", [4, 8])
def test_killed_it_goes_on_with_the_same_bits(straight: Path, tiny_data: Path, tmp_path: Path, after: int) -> None:
    run = as_if_killed(straight, tmp_path, after=after)
    train(config_of(tiny_data, tmp_path, "model.dropout=0"))
    assert_same_state(final_checkpoint(run), final_checkpoint(straight))
    assert metrics(run) == metrics(straight)


def test_other_micro_batches_and_ranks_make_the_same_run(straight: Path, tiny_data: Path, tmp_path: Path) -> None:
    run = as_if_killed(straight, tmp_path / "micro", after=4)
    train(config_of(tiny_data, tmp_path / "micro", "model.dropout=0", "micro_batch=8"))
    assert_near(run, straight)
    run = as_if_killed(straight, tmp_path / "ranks", after=4)
    answer = start(overrides(tiny_data, tmp_path / "ranks", "model.dropout=0", "trainer=ddp"))
    assert answer.returncode == 0, answer.stderr
    assert_near(run, straight)


def test_the_log_has_the_rate_of_the_config(straight: Path) -> None:
    """Whatever the multipliers: group by group, what the checkpoint remembers is a quarter's square root of it, or it."""
    config = config_of(Path("data"), Path("runs"))
    expected = learning_rate_schedule(steps=STEPS, **config["schedule"])
    for row in metrics(straight):
        if "train/lr" in row:
            assert row["train/lr"] == pytest.approx(config["optimizer"]["lr"] * expected(row["step"] - 1))
    (optimizer,) = final_checkpoint(straight)["optimizer_states"]
    peaks = {group["initial_lr"] / config["optimizer"]["lr"] for group in optimizer["param_groups"]}
    assert peaks == {1.0, 0.5}
    assert {key for state in optimizer["state"].values() for key in state if key != "step"} == {
        *("momentum_buffer", "exp_avg", "exp_avg_sq")
    }


def test_a_changed_rate_holds_for_every_group(straight: Path, tiny_data: Path, tmp_path: Path) -> None:
    run = as_if_killed(straight, tmp_path, after=8)
    train(config_of(tiny_data, tmp_path, "model.dropout=0", "optimizer.lr=1e-3", "optimizer.weight_decay=0.2"))
    (optimizer,) = final_checkpoint(run)["optimizer_states"]
    for group in optimizer["param_groups"]:
        multiplier = group.get("lr_multiplier", 1.0)
        assert group["initial_lr"] == 1e-3 * multiplier
        assert group["weight_decay"] in (0.0, 0.2 / multiplier)


def test_at_its_base_width_a_model_trains_as_without(tiny_data: Path, tmp_path: Path) -> None:
    folders = [f"data_dir={tiny_data}", f"runs_dir={tmp_path}"]
    for name, base_width in (("plain", "null"), ("same", "32"), ("other", "16")):
        train(compose_config("train", [*TINY, *folders, f"name={name}", f"base_width={base_width}"]))
    weights = {name: final_weights(tmp_path / name) for name in ("plain", "same", "other")}
    assert same_bits(weights["plain"], weights["same"])
    assert not same_bits(weights["plain"], weights["other"])


def test_a_fall_from_a_plateau_is_the_run_that_was_to_fall(tiny_data: Path, tmp_path: Path) -> None:
    """A trunk that stays at its peak, and a branch where the fall of a run of 16 steps begins."""
    same = ["curriculum=constant", "curriculum.mixes.base={stdlib:1}"]
    folders = [f"data_dir={tiny_data}", f"runs_dir={tmp_path}", "max_steps=16", "optimizer=muon"]
    wsd = ["schedule=wsd", "schedule.decay_share=0.5"]
    branch = [f"branch.run={tmp_path}/trunk", "branch.step=8"]
    for name, more in (("straight", wsd), ("trunk", ["schedule=constant"]), ("tail", [*wsd, *branch])):
        train(compose_config("train", [*TINY, *same, *folders, f"name={name}", *more]))
    assert same_bits(final_weights(tmp_path / "tail"), final_weights(tmp_path / "straight"))
    rates = {row["step"]: row["train/lr"] for row in metrics(tmp_path / "straight") if "train/lr" in row}
    assert rates[4] == rates[8] > rates[10] > rates[16] > 0
