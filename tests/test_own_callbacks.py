"""A user's own callbacks, and Lightning's: those that work in a run, and those that are refused with what to use instead."""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpt_lightning.jsonl_reader import read_rows
from running.commands.train import train
from running.config import allowed_targets
from running.config.allowed_targets import allow_typed_targets, typed_targets
from running.config.command_line_check import check_command_line
from running.config.compose import compose_config
from running.training.callback_builders import build_callbacks
from tests.conftest import TINY, start

Config = Callable[..., dict[str, Any]]
OF_LIGHTNING = "lightning.pytorch.callbacks"
SHORT = ["max_steps=4", "curriculum=constant", "curriculum.mixes.base={stdlib:1}", "log_every=2", "val_every=2"]
MINE = """
import lightning as L

class Mine(L.Callback):
    def __init__(self, *, factor=1.0):
        self.factor = factor
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.log("mine/logged", self.factor * trainer.global_step)
        for logger in trainer.loggers:
            logger.log_metrics({"mine/direct": 1.0}, step=trainer.global_step)

    def on_validation_end(self, trainer, pl_module):
        assert trainer.callback_metrics["val/loss/mean"] > 0

class Other:
    pass
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module of the user's."""
    name = f"mine_{os.getpid()}_{len(sys.modules)}"
    (tmp_path / f"{name}.py").write_text(MINE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # of processes
    return name


def test_a_callback_that_was_typed_is_called(package: str, tiny_overrides: list[str], tmp_path: Path) -> None:
    mine = [f"+callbacks.mine._target_={package}.Mine", "+callbacks.mine.factor=2.0"]
    answer = start([*tiny_overrides, *SHORT, "name=run", *mine])
    assert answer.returncode == 0, answer.stderr
    rows = read_rows(tmp_path / "runs" / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert [row["mine/logged"] for row in rows if "mine/logged" in row] == [4, 8]
    assert [row["mine/direct"] for row in rows] == [1.0] * 4


@pytest.mark.parametrize(
    "setting",
    [
        "+callbacks.mine._target_=a.b.Mine",
        "++callbacks.mine._target_='a.b.Mine'",
        "callbacks.samples._target_=a.b.Mine",
        "+callbacks.mine={_target_:a.b.Mine,every:1}",
    ],
)
def test_what_is_typed_is_found_on_the_command_line(setting: str) -> None:
    assert typed_targets(["seed=1", setting, "+callbacks.x.every=1", "~callbacks.y"]) == {"a.b.Mine"}


@pytest.mark.parametrize("setting", ["optimizer._target_=a.b.Mine", "name=a.b.Mine", "~callbacks.mine._target_"])
def test_nothing_else_that_is_typed_is_called(setting: str) -> None:
    assert typed_targets([setting]) == set()


def test_one_of_a_file_is_refused_and_told_how_to_allow_it(
    package: str, tiny_overrides: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "configs" / "experiment"
    folder.mkdir(parents=True)
    content = {"defaults": ["quickstart"], "callbacks": {"mine": {"_target_": f"{package}.Mine"}}}
    (folder / "theirs.yaml").write_text("# @package _global_\n" + yaml.safe_dump(content))
    answer = start(["experiment=theirs", *tiny_overrides, "name=run"], "--config-dir", str(tmp_path / "configs"))
    (sentence,) = answer.stderr.splitlines()
    allowed = rf"To allow your own callback, type \+\+callbacks\.<its name>\._target_={package}\.Mine\."
    assert re.match(rf"error: _target_={package}\.Mine may not be called from a config.* {allowed}", sentence)
    assert not (tmp_path / "runs" / "run").exists()


def test_an_axis_of_a_file_names_no_callback(tmp_path: Path) -> None:
    folder = tmp_path / "experiment"
    folder.mkdir()
    axes = {"callbacks.samples": "{_target_:evil.Evil},{_target_:evil.Evil2}"}
    content = {"defaults": ["quickstart"], "hydra": {"sweeper": {"params": axes}}}
    (folder / "theirs.yaml").write_text("# @package _global_\n" + yaml.safe_dump(content))
    with pytest.raises(ValueError, match=r"the axis callbacks\.samples=.* of a config file names a callback: type it"):
        check_command_line("train", ["--config-dir", str(tmp_path), "-m", "experiment=theirs"])


def test_a_typed_one_is_a_callback_and_can_be_imported(package: str) -> None:
    for name, message in (
        (f"{package}.Other", r"Other is not a subclass of lightning\.pytorch\.callbacks\.Callback\."),
        (f"{package}.Nothing", f"the module {package} has no Nothing\\."),
        ("no_such_package.Mine", r"no_such_package\.Mine cannot be imported \(ModuleNotFoundError.*PYTHONPATH"),
    ):
        with allow_typed_targets([name]), pytest.raises(ValueError, match=message):
            allowed_targets.build_callback({"_target_": name})


@pytest.mark.parametrize(
    ("name", "arguments", "instead"),
    [
        ("ModelCheckpoint", {"monitor": "val/loss/mean"}, r"callbacks\.checkpoints saves"),
        ("OnExceptionCheckpoint", {"dirpath": "x"}, r"callbacks\.checkpoints saves"),
        ("StochasticWeightAveraging", {"swa_lrs": 0.1}, r"use callbacks\.WeightAveraging"),
        ("GradientAccumulationScheduler", {"scheduling": {0: 4}}, "global_batch"),
        ("RichProgressBar", {}, "has its own progress bar"),
        ("TQDMProgressBar", {}, "has its own progress bar"),
        ("ModelPruning", {}, "renames the weights"),
        ("BatchSizeFinder", {}, "micro_batch"),
        ("LearningRateFinder", {}, "experiment=lr_search"),
        ("Timer", {"duration": "00:01:00:00"}, "set max_hours"),
        ("ThroughputMonitor", {}, r"callbacks\.throughput"),
        ("RichModelSummary", {}, r"plan\.py"),
        ("BackboneFinetuning", {}, "init_from"),
    ],
)
def test_one_of_lightnings_without_a_place_is_refused_with_what_to_use(
    tiny_config: Config, name: str, arguments: dict[str, Any], instead: str
) -> None:
    config = tiny_config("name=run")
    config["callbacks"] = config["callbacks"] | {"theirs": {"_target_": f"{OF_LIGHTNING}.{name}"} | arguments}
    with pytest.raises(ValueError, match=rf"{name}.* does not work in a run: .*{instead}"):
        build_callbacks(config["callbacks"])


def test_nor_has_one_that_is_derived_from_it(package: str, tmp_path: Path) -> None:
    (tmp_path / f"{package}_more.py").write_text(
        f"from {OF_LIGHTNING} import ModelCheckpoint\n\nclass Mine(ModelCheckpoint):\n    pass\n"
    )
    with (
        allow_typed_targets([f"{package}_more.Mine"]),
        pytest.raises(ValueError, match=r"Mine, a ModelCheckpoint does not work in a run"),
    ):
        allowed_targets.build_callback({"_target_": f"{package}_more.Mine"})


def test_two_of_one_state_are_refused(tiny_config: Config) -> None:
    two = [f"+callbacks.{name}._target_={OF_LIGHTNING}.EMAWeightAveraging" for name in ("a", "b")]
    with pytest.raises(ValueError, match=r"callbacks\.a and callbacks\.b are of the same class"):
        build_callbacks(tiny_config("name=run", *two)["callbacks"])


def test_monitors_of_lightnings_log_into_the_rows_of_their_steps(tiny_data: Path, tmp_path: Path) -> None:
    monitors = [
        f"+callbacks.{name}._target_={OF_LIGHTNING}.{name}" for name in ("DeviceStatsMonitor", "LearningRateMonitor")
    ]
    overrides = [*TINY, f"data_dir={tiny_data}", f"runs_dir={tmp_path}", "name=run", *SHORT, *monitors]
    train(compose_config("train", overrides))
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [2, 4]
    for row in rows:
        assert row["lr-AdamW/pg1"] == pytest.approx(row["train/lr"])
        assert "DeviceStatsMonitor.on_train_batch_end/cpu_percent" in row
        assert "epoch" not in row
