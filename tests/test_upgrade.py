"""Runs of an older version, and optimizer options that need a state which the checkpoint does not have."""

import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from running.commands.train import train
from running.config.changed_settings import BEFORE
from running.config.compose import compose_config, flatten, read_config
from running.config.optimization_configs import OptimizerConfig
from running.config.renamed_targets import RENAMED_TARGETS
from running.sweeps.sweep_state import is_finished
from running.training.builders import build_optimizer
from tests.conftest import TINY, composed
from tests.run_files import as_if_killed, contents, final_checkpoint

CONSTANT = ["curriculum=constant", "curriculum.mixes.base={stdlib:1}"]
FIRST_VERSION = {
    *("name", "runs_dir", "run_dir", "sweep_dir", "data_dir", "seed", "max_steps", "global_batch", "micro_batch"),
    *("gradient_clip", "log_every", "val_every", "data.val_sequences", "data.workers"),
    *(f"model.{key}" for key in ("vocab_size", "max_seq_len", "d_model", "n_layers", "n_heads", "d_ff", "norm")),
    *(f"model.{key}" for key in ("feed_forward", "position", "bias", "tie_embeddings", "dropout", "attention")),
    *(f"tokenizer.{key}" for key in ("name", "model_vocab_size", "train_on")),
    *(f"optimizer.{key}" for key in ("_target_", "lr", "betas", "eps", "weight_decay", "fused")),
    *(f"schedule.{key}" for key in ("warmup_steps", "final_ratio")),
    *(f"trainer.{key}" for key in ("accelerator", "devices", "num_nodes", "strategy", "precision")),
    *(f"callbacks.{name}._target_" for name in ("throughput", "validation", "mix_ledger", "samples", "checkpoints")),
    *(f"callbacks.{name}.every" for name in ("throughput", "mix_ledger", "samples", "checkpoints")),
    *(f"callbacks.samples.{key}" for key in ("prompts", "chat_prompts", "max_new_tokens", "temperature", "top_k")),
    "callbacks.checkpoints.keep",
}
"""The settings that every run has."""


def of_an_old_version(config: dict[str, Any]) -> dict[str, Any]:
    """The config without any setting that came later."""
    old = OmegaConf.create({})
    for key, value in flatten(config):
        if key in FIRST_VERSION or key.startswith("curriculum."):
            OmegaConf.update(old, key, value)
    container = OmegaConf.to_container(old)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def config_of(data_dir: Path, runs: Path, *more: str) -> dict[str, Any]:
    return composed([*TINY, "name=run", f"data_dir={data_dir}", f"runs_dir={runs}", *more])


@pytest.fixture(scope="module")
def straight(trained: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 12 steps, with a config as an old version wrote it."""
    run = shutil.copytree(trained(), tmp_path_factory.mktemp("old") / "run")
    OmegaConf.save(OmegaConf.create(of_an_old_version(read_config(run / "config.yaml"))), run / "config.yaml")
    return run


def test_every_setting_says_what_runs_without_it_did() -> None:
    """A setting that is new stands in `BEFORE`, with the value that changes nothing, unless it is null."""
    later = {
        key: value
        for key, value in flatten(compose_config("train"))
        if key not in FIRST_VERSION | {"jobs_at_once"} and not key.startswith(("curriculum.", "logger", "hardware"))
    }
    assert {key for key, value in later.items() if value is not None} == BEFORE.keys()
    assert later == dict.fromkeys(later) | BEFORE


def test_a_run_of_an_old_version_that_is_done_is_done(
    straight: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = as_if_killed(straight, tmp_path, after=12)
    config = config_of(tiny_data, tmp_path)
    assert is_finished(run, config)
    train(config)
    assert "is done: 12 steps, nothing to do" in capsys.readouterr().out
    for setting in ("on_spike=skip", "trainer.recompute=blocks", "model.qk_norm=true"):
        assert not is_finished(run, config_of(tiny_data, tmp_path, setting))


def test_a_run_of_an_old_version_goes_on_and_nothing_has_changed(
    straight: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = as_if_killed(straight, tmp_path, after=8)
    train(config_of(tiny_data, tmp_path))
    said = capsys.readouterr().out
    assert "continuing after step 8" in said
    assert "changed" not in said
    assert "was None" not in said
    assert not (run / "changes.jsonl").exists()


def test_a_new_setting_that_is_not_its_old_default_is_a_change(
    straight: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = as_if_killed(straight, tmp_path, after=8)
    train(config_of(tiny_data, tmp_path, "on_spike=skip"))
    assert "changed from here on: on_spike=skip, was train" in capsys.readouterr().out
    assert (run / "changes.jsonl").is_file()
    with pytest.raises(ValueError, match=r"was started with model\.qk_norm=False, and now it is True"):
        train(config_of(tiny_data, tmp_path, "model.qk_norm=true"))


def test_a_trunk_of_an_old_version_has_branches(straight: Path, tiny_data: Path, tmp_path: Path) -> None:
    train(config_of(tiny_data, tmp_path, f"branch.run={straight}", "branch.step=8", "max_steps=10"))
    with pytest.raises(ValueError, match=r"model\.qk_norm is True, but .* was trained with False"):
        train(config_of(tiny_data, tmp_path, f"branch.run={straight}", "branch.step=8", "model.qk_norm=true", "name=b"))


@pytest.mark.parametrize(
    ("before", "after", "missing"),
    [
        ([], ["+optimizer.amsgrad=true"], "max_exp_avg_sq"),
        (["optimizer._target_=torch.optim.RMSprop"], ["+optimizer.centered=true"], "grad_avg"),
        (["optimizer._target_=torch.optim.RMSprop"], ["+optimizer.momentum=0.9"], "momentum_buffer"),
    ],
)
def test_an_option_that_needs_another_state_is_refused(
    tiny_data: Path, tmp_path: Path, before: list[str], after: list[str], missing: str
) -> None:
    before = [*CONSTANT, *before, *(("~optimizer.betas", "~optimizer.fused") if before else ())]
    train(config_of(tiny_data, tmp_path, *before, "max_steps=4"))
    everything = contents(tmp_path / "run")
    name = after[0].lstrip("+").split("=")[0]
    with pytest.raises(
        ValueError, match=rf"{name}=.* cannot continue from .*step_00000004\.pt, .*: its state lacks {missing}"
    ):
        train(config_of(tiny_data, tmp_path, *before, *after, "max_steps=8"))
    assert {path: sha for path, sha in contents(tmp_path / "run").items() if path in everything} == everything


@pytest.mark.parametrize("fused", ["false", "null"])
def test_an_option_that_moves_the_state_is_converted(tiny_data: Path, tmp_path: Path, fused: str) -> None:
    train(config_of(tiny_data, tmp_path, *CONSTANT, "max_steps=4"))
    train(config_of(tiny_data, tmp_path, *CONSTANT, "max_steps=8", f"optimizer.fused={fused}"))
    assert final_checkpoint(tmp_path / "run")["global_step"] == 8


def test_an_optimizer_that_cannot_make_a_step_is_refused(tiny_data: Path, tmp_path: Path) -> None:
    config = config_of(tiny_data, tmp_path, "+optimizer.capturable=true", "optimizer.fused=false")
    assert build_optimizer(OptimizerConfig.of(config["optimizer"]), "32-true")
    with pytest.raises(ValueError, match=r"optimizer: torch\.optim\.AdamW cannot take a step: .*capturable"):
        train(config)
    assert not (tmp_path / "run" / "environment.json").exists()


def test_callbacks_are_found_by_the_names_of_earlier_versions(tiny_data: Path, tmp_path: Path) -> None:
    for old, new in RENAMED_TARGETS.items():
        package, _, name = new.rpartition(".")
        assert hasattr(import_module(package), name)
        assert not hasattr(import_module(package), old.rpartition(".")[2])
    config = compose_config("train", [*TINY, f"data_dir={tiny_data}", f"runs_dir={tmp_path}", "name=run"])
    config["callbacks"]["table"] = {"_target_": "callbacks.MetricsTable"}
    train(config)
    assert (tmp_path / "run" / "metrics.csv").is_file()
