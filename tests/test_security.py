"""A config of a stranger's runs nothing: what it names is refused in one sentence, and the marker is not there."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from running.config import allowed_targets
from running.config.command_line_check import check_command_line
from running.config.compose import CONF, compose_config, write_config
from running.config.source_builders import open_corpus
from running.config.source_config import read_source
from running.training.callback_builders import build_callbacks
from tests.conftest import ROOT

EVIL = {"_target_": "os.mkdir", "path": "MARKER"}  # nothing that Hydra itself would refuse
BY_HYDRA: dict[str, tuple[dict[str, Any], list[str]]] = {
    "a callback": ({"callbacks": {"evil": EVIL}}, []),
    "callbacks in a list": ({"callbacks": {"evil": [EVIL]}}, []),
    "beside a launcher": (
        {"launcher": {"additional_parameters": {"evil": EVIL}}},
        ["-m", "run=a,b", "hydra/launcher=submitit_slurm"],
    ),
    "commands of a launcher": (
        {"launcher": {"setup": ["mkdir MARKER"]}},
        ["-m", "run=a,b", "hydra/launcher=submitit_slurm"],
    ),
    "a log handler": (
        {
            "job_logging": {
                "version": 1,
                "handlers": {"evil": {"class": "logging.FileHandler", "filename": "MARKER"}},
                "root": {"handlers": ["evil"]},
            }
        },
        [],
    ),
    "a maker of log handlers": (
        {
            "hydra_logging": {
                "version": 1,
                "handlers": {"evil": {"()": "os.mkdir", "path": "MARKER"}},
                "root": {"handlers": ["evil"]},
            }
        },
        [],
    ),
    "another script": ({"mode": "MULTIRUN", "job": {"name": "FOLDER/payload"}}, []),
    "an environment": ({"job": {"env_set": {"PYTHONPATH": "FOLDER"}}}, ["-m", "run=a,b"]),
    "what was not typed": ({"overrides": {"hydra": ["hydra.job.name=FOLDER/payload"]}}, ["-m", "run=a,b"]),
    "settings of jobs": ({"sweeper": {"params": {"hydra.job.name": "FOLDER/payload"}}}, ["-m", "run=a,b"]),
    "a package": ({"searchpath": ["pkg://payload"]}, []),
}


def written(path: Path, content: Any) -> None:
    """As YAML, with MARKER and FOLDER put in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else yaml.safe_dump(content)
    path.write_text(text.replace("MARKER", str(marker(path))).replace("FOLDER", str(path.parent)))


def marker(config: Path) -> Path:
    return config.with_name("marker")


def sentence(program: str, *arguments: str) -> str:
    """What a program that refuses says."""
    command = [sys.executable, str(ROOT / f"{program}.py"), *arguments]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert answer.returncode == 1, answer.stdout + answer.stderr
    assert answer.stderr.startswith("error: "), answer.stderr
    assert len(answer.stderr.splitlines()) == 1, answer.stderr
    return answer.stderr


@pytest.mark.parametrize("what", BY_HYDRA)
def test_a_config_does_not_tell_hydra_what_to_run(what: str, tmp_path: Path) -> None:
    node, arguments = BY_HYDRA[what]
    path = tmp_path / "evil.yaml"
    written(path, {"defaults": ["_self_", {"override hydra/job_logging": "disabled"}], "run": "nowhere", "hydra": node})
    for name in ("payload.py", "sitecustomize.py"):
        (tmp_path / name).write_text(f"import os; os.makedirs({str(marker(path))!r}, exist_ok=True)")
    refusal = sentence("report", "--config-path", str(tmp_path), "--config-name", "evil", *arguments)
    assert re.search(r"error: hydra\.\w+", refusal)
    assert not marker(path).exists()


@pytest.mark.parametrize(
    ("file", "content", "arguments"),
    [
        ("experiment/evil.yaml", "# @package _global_\nhydra: {callbacks: {evil: EVIL}}", ["experiment=evil"]),
        ("experiment/evil.yaml", "# @package hydra.callbacks.evil\nCONTENT", ["experiment=evil"]),
        ("evil/evil.yaml", "CONTENT", ["+evil@hydra.callbacks.evil=evil"]),
        ("hydra/callbacks/evil.yaml", "evil: EVIL", ["+hydra/callbacks=evil"]),
        ("experiment/evil.yaml", "# @package _global_\nhydra: {callbacks: {evil: EVIL}}", ["-m", "experiment=evil,local"]),
        ("experiment/evil.yaml", "# @package _global_\nname: !!python/object/apply:os.mkdir [MARKER]", ["experiment=evil"]),
    ],
)  # fmt: skip
def test_nor_does_a_choice_of_a_group(file: str, content: str, arguments: list[str], tmp_path: Path) -> None:
    inline = "{_target_: os.mkdir, path: MARKER}"
    written(tmp_path / file, content.replace("EVIL", inline).replace("CONTENT", inline[1:-1].replace(", ", "\n")))
    with pytest.raises(ValueError, match=r"hydra|YAML") as refusal:
        check_command_line("train", ["--config-dir", str(tmp_path), *arguments])
    assert len(str(refusal.value).splitlines()) == 1
    assert not marker(tmp_path / file).exists()


def test_what_was_typed_may_not_be_called_either() -> None:
    for typed in (
        "+hydra.callbacks.evil._target_=os.mkdir",
        "+hydra.callbacks.evil=[{_target_:os.mkdir}]",
        "hydra.launcher._target_=os.mkdir",
        "+hydra.launcher.evil._target_=os.mkdir",
    ):
        with pytest.raises(ValueError, match=r"may not be called: use one of Hydra's launchers or sweepers\."):
            check_command_line("train", [typed])


def test_a_pickle_of_hydra_is_not_read(tmp_path: Path) -> None:
    for flag in ("--experimental-rerun", "--experimental-rer"):
        with pytest.raises(ValueError, match="reads a pickle, which can run code"):
            check_command_line("train", [flag, str(tmp_path / "config.pickle")])


def test_folders_and_configs_of_ones_own_are_read(tmp_path: Path) -> None:
    written(tmp_path / "experiment" / "mine.yaml", (CONF / "experiment" / "local.yaml").read_text())
    check_command_line("train", ["--config-dir", str(tmp_path), "experiment=mine", "seed=2"])
    check_command_line("train", ["--config-dir", str(tmp_path), "-m", "experiment=mine,local"])
    write_config(tmp_path / "whole.yaml", compose_config("train"))
    whole = ["--config-path", str(tmp_path), "--config-name", "whole"]
    of_lightning = ['hydra.run.dir="."', "hydra.job.name=train_ddp_process_1", "hydra.output_subdir=null"]
    check_command_line("train", [*whole, "seed=2", *of_lightning])
    with pytest.raises(ValueError, match=r"there is no setting sed: did you mean seed\?"):
        check_command_line("train", [*whole, "+sed=2"])
    check_command_line("prepare", ["-m", "hydra/launcher=submitit_local", "part=0/2,1/2"])


@pytest.mark.parametrize(
    "target",
    [
        "callbacks.checkpoints.prune_checkpoints",
        "gpt_lightning.verified_checkpoint.prune",
        "callbacks.Samples",
        "torch.optim.lr_scheduler.StepLR",
        "torch.optim.adamw.torch.hub.load",
        "torch.load",
        "bitsandbytes.optim.GlobalOptimManager",
        "hydra.utils.get_method",
        "data_modules.corpora.stdlib",
    ],
)
def test_only_an_optimizer_stands_where_one_is_wanted(target: str) -> None:
    with pytest.raises(
        ValueError, match=rf"_target_={re.escape(target)} may not be called from a config: it must be an"
    ):
        allowed_targets.resolve_optimizer({"_target_": target})


@pytest.mark.parametrize(
    "target",
    [
        "torch.optim.AdamW",
        "callbacks.checkpoints.Path.touch",
        "gpt_lightning.loggers.terminal_and_log_file.ConsoleLogger",
        "lightning.pytorch.callbacks.os.mkdir",
        "lightning.pytorch.loggers.TensorBoardLogger",
        "data_modules.MixedDataModule",
    ],
)
def test_only_a_callback_stands_where_one_is_wanted(target: str) -> None:
    with pytest.raises(
        ValueError, match=rf"_target_={re.escape(target)} may not be called from a config: it must be a c"
    ):
        build_callbacks({"evil": {"_target_": target}})  # fmt: skip


@pytest.mark.parametrize(
    "target",
    ["data_modules.corpora.find_local_files", "data_modules.corpora.find_hub_files", "callbacks.Samples", "os.listdir"],
)
def test_only_a_corpus_stands_where_one_is_wanted(target: str) -> None:
    with pytest.raises(
        ValueError, match=rf"_target_={re.escape(target)} may not be called from a config: it must be a c"
    ):
        open_corpus({}, "evil", replace(read_source("stdlib"), corpus={"_target_": target, "path": "/"}))  # fmt: skip


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"_args_": [1]}, "has the argument _args_"),
        ({"_partial_": True}, "has the argument _partial_"),
        ({"_recursive_": False}, "has the argument _recursive_"),
        ({"prompts": EVIL}, "has _target_=os.mkdir: arguments must be plain values"),
        ({"prompts": [{"a": [EVIL]}]}, "has _target_=os.mkdir: arguments must be plain values"),
        ({"none_of_its": 1}, "callbacks.Samples cannot be built: .*unexpected keyword argument 'none_of_its'"),
    ],
)
def test_arguments_are_plain_values(more: dict[str, Any], message: str) -> None:
    node = {"_target_": "callbacks.Samples", "every": 1, "prompts": ["a"], "chat_prompts": [], "max_new_tokens": 1}
    node |= {"temperature": 1.0, "top_k": 1}
    assert allowed_targets.build_callback(node)
    with pytest.raises(ValueError, match=message):
        allowed_targets.build_callback(node | more)


@pytest.mark.parametrize("node", [None, 3, [], {}, {"every": 1}])
def test_a_node_that_names_nothing_is_refused(node: Any) -> None:
    with pytest.raises(ValueError, match="has no _target_: it must name a callback with _target_"):
        allowed_targets.build_callback(node)


def test_interpolations_build_nothing() -> None:
    """Whatever resolvers make of a config is there before it is looked at."""
    made = "${oc.create:{_target_:os.mkdir,path:x}}"
    config = compose_config("train", [f"callbacks.samples='{made}'"])
    assert config["callbacks"]["samples"] == {"_target_": "os.mkdir", "path": "x"}
    with pytest.raises(ValueError, match=r"_target_=os\.mkdir may not be called"):
        build_callbacks(config["callbacks"])
