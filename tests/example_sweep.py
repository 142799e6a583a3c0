"""A sweep in small, with everything that can go wrong in one: what a comparison is tested on."""

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from running.commands.train import train
from running.config.compose import compose_config
from tests.conftest import TINY

HOSTILE = "</script><img src=x onerror=hacked=1>\u2028<b>&amp;%{x}"
"""What a model can write, and a user can call a run."""
HOSTILE_NAME = "<img src=x onerror=hacked=1>&amp;"
RATES = {"a": 1e-3, "b": 1e-3, "c": 4e-3, "d": 1.6e-2}
"""Learning rates of the runs that compare; a and b differ in nothing but their seed."""


def train_sweep(folder: Path, data_dir: Path) -> Path:
    """Four runs that compare, one that does not, and copies that are broken, unfinished or hostile; the folder of all."""
    for name, rate in RATES.items():
        _train(folder, data_dir, name, f"optimizer.lr={rate}", f"seed={2 if name == 'b' else 1}")
    _train(folder, data_dir, "longer", "optimizer.lr=1e-3", "seed=1", "max_steps=16")
    rotten = copy_of(folder / "a", "rotten") / "metrics.jsonl"
    rotten.write_bytes(rotten.read_bytes().replace(b'"step": 4', b'"step" 4', 1))
    (copy_of(folder / "a", "no_config") / "config.yaml").unlink()
    (copy_of(folder / "a", "no_metrics") / "metrics.jsonl").unlink()
    unfinished = copy_of(folder / "c", "unfinished") / "metrics.jsonl"
    unfinished.write_bytes(b"\n".join(unfinished.read_bytes().split(b"\n")[:3]) + b'\n{"step": 8, "tr')
    edit_environment(copy_of(folder / "c", "other_tokenizer"), tokenizer="0" * 64)
    hostile = copy_of(folder / "d", HOSTILE_NAME)
    with (hostile / "samples.jsonl").open("a", encoding="utf-8") as samples:
        row = {"step": 12, "prompt": HOSTILE, "chat": False, "response": HOSTILE + "\nseen"}
        samples.write(json.dumps(row, ensure_ascii=False) + "\n")
    config = yaml.safe_load((hostile / "config.yaml").read_text())
    config["callbacks"]["samples"]["prompts"] = [HOSTILE]
    config["curriculum"]["on_exhausted"] = HOSTILE
    (hostile / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def copy_of(run: Path, name: str) -> Path:
    """A copy beside it, without what takes room."""
    copy = run.with_name(name)
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("checkpoints", "tensorboard"))
    return copy


def edit_environment(run: Path, **entries: Any) -> None:
    """Set some of what a run says of its surroundings."""
    path = run / "environment.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def _train(folder: Path, data_dir: Path, name: str, *more: str) -> None:
    places = [f"data_dir={data_dir}", f"runs_dir={folder}", f"name={name}"]
    seldom = ["val_every=6", "callbacks.checkpoints.every=12"]
    train(compose_config("train", [*TINY, *seldom, *places, *more]))
