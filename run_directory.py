"""The one folder that holds everything a run wrote.

runs/<name>/config.yaml          resolved           environment.json    versions, git revision, device, data
runs/<name>/checkpoints/         the newest three   tensorboard/
runs/<name>/metrics.jsonl        one row a step     samples.jsonl       training_<time>.log     report/
"""

import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from data_folder import tokenizer_called
from data_modules import SourceShards
from gpt_lightning.checkpoint import newest_valid_checkpoint
from gpt_lightning.tokenizer import Tokenizer, load_tokenizer
from launch import flatten

# Where a run runs, not what it is.
MAY_CHANGE = {"data_dir", "runs_dir", "run_dir", "sweep_dir", "data.prepare", "data.workers"} | {
    f"trainer.{key}" for key in ("accelerator", "devices", "num_nodes", "strategy", "compile")
}
_PACKAGES = ("torch", "lightning", "numpy", "tokenizers", "tiktoken", "hydra-core", "bitsandbytes")


class RunDirectory:
    """A run's folder, new or begun before.

    Args:
        path: the folder; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics = path / "metrics.jsonl"

    def newest_checkpoint(self, config: Mapping[str, Any], sources: Mapping[str, SourceShards]) -> Path | None:
        """The newest valid checkpoint of the run begun here, if it is this one; None if none is saved yet. Writes nothing.

        Raises:
            ValueError: the folder belongs to a run with other settings or data, or all of its checkpoints are damaged.
        """
        if not (self.path / "environment.json").is_file():
            return None
        self._refuse_other_settings(config)
        self._refuse_other_data(sources)
        newest = newest_valid_checkpoint(self.path / "checkpoints")
        if newest is None and any((self.path / "checkpoints").glob("step_*.pt")):
            raise ValueError(
                f"no checkpoint in {self.path / 'checkpoints'} is undamaged: choose another name to begin anew."
            )
        return newest

    def begin(
        self, config: Mapping[str, Any], sources: Mapping[str, SourceShards], initial_weights: str | None = None
    ) -> None:
        """Write down, once, what the run is made of; a second beginning must be of the same.

        Args:
            initial_weights: fingerprint of those that `init_from` gave; None: it gave none, or a checkpoint goes before them.

        Raises:
            ValueError: they are others than when the run was begun.
        """
        if (self.path / "environment.json").is_file():
            then = json.loads((self.path / "environment.json").read_text())["initial_weights"]
            if initial_weights not in (None, then):
                raise ValueError(
                    f"{self.path} was begun with other weights than init_from={config['init_from']} holds by now: choose "
                    "another run with name=…."
                )
            return
        data = {
            name: {
                "fingerprint": source.fingerprint,
                "train_tokens": len(source.train),
                "unigram_loss": source.information["unigram_loss"],
            }
            for name, source in sources.items()
        }
        tokenizer = next(iter(sources.values())).information["tokenizer"]["fingerprint"]  # of all sources the same
        environment = _environment() | {"tokenizer": tokenizer, "initial_weights": initial_weights, "data": data}
        self.path.mkdir(parents=True, exist_ok=True)
        _write(self.path / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(config))))
        _write(self.path / "environment.json", json.dumps(environment, indent=2) + "\n")

    def final_metrics(self) -> dict[str, float]:
        """The last value of every metric."""
        metrics: dict[str, float] = {}
        for line in self.metrics.read_text(encoding="utf-8").split("\n")[:-1]:
            metrics |= json.loads(line)
        return metrics

    def log_file(self) -> Path:
        """A log file for this start of the run."""
        return self.path / f"training_{time.strftime('%Y%m%d_%H%M%S')}.log"

    def _refuse_other_settings(self, config: Mapping[str, Any]) -> None:
        then = dict(flatten(OmegaConf.to_container(OmegaConf.load(self.path / "config.yaml"))))
        now = dict(flatten(config))
        for key in [*then, *(key for key in now if key not in then)]:
            if then.get(key) != now.get(key) and key not in MAY_CHANGE:
                raise ValueError(
                    f"{self.path} was begun with {key}={then.get(key)}, and now it is {now.get(key)}: choose another run with "
                    "name=…, or set it back to go on with this one."
                )

    def _refuse_other_data(self, sources: Mapping[str, SourceShards]) -> None:
        then = json.loads((self.path / "environment.json").read_text())["data"]
        for name, source in sources.items():
            if then[name]["fingerprint"] != source.fingerprint:
                raise ValueError(
                    f"{self.path} was begun with other tokens of source {name} (fingerprint {then[name]['fingerprint'][:12]}, "
                    f"now {source.fingerprint[:12]}): choose another run with name=…."
                )


def tokenizer_of(path: Path, name: str | None) -> Tokenizer:
    """The tokenizer called `name`; without a name the one that goes with the model at `path`.

    A run names it in its config.yaml, a converted folder holds it.

    Raises:
        ValueError: there is none, or the run was trained with another one of that name.
    """
    if not path.exists():
        raise ValueError(f"there is no run or model {path}.")
    if name is not None:
        return load_tokenizer(name)
    run = path.parent.parent if path.is_file() else path
    if (run / "config.yaml").is_file():
        return _tokenizer_of_run(run)
    if (path / "tokenizer.json").is_file():
        return load_tokenizer(path)
    raise ValueError(f"{path} does not say which tokenizer its model was trained with: name it with tokenizer.name=….")


def refuse_other_tokenizer(path: Path, tokenizer: Tokenizer) -> None:
    """Weights that are trained on must have been trained with the same tokens, or with some of them, if it is known.

    Raises:
        ValueError: an id is another token with the tokenizer of the model at `path`.
    """
    try:
        theirs = tokenizer_of(path, None)
    except ValueError:
        return
    if not tokenizer.extends(theirs):
        raise ValueError(
            f"init_from={path} was trained with a tokenizer {theirs.name} whose ids are other tokens than those of "
            f"{tokenizer.name} here."
        )


def _tokenizer_of_run(run: Path) -> Tokenizer:
    try:
        config: Any = OmegaConf.to_container(OmegaConf.load(run / "config.yaml"))
        name = config["tokenizer"]["name"]
        data_dir = Path(config["data_dir"])
        fingerprint = json.loads((run / "environment.json").read_text())["tokenizer"]
    except Exception as error:  # what is no YAML or no config of ours makes OmegaConf raise almost anything
        raise ValueError(
            f"{run} does not say which tokenizer it was trained with: its config.yaml and environment.json are not those of "
            f"a run ({type(error).__name__}). Name it with tokenizer.name=…."
        ) from error
    tokenizer = tokenizer_called(name, data_dir)
    if tokenizer.fingerprint != fingerprint:
        raise ValueError(
            f"{run} was trained with another tokenizer {tokenizer.name} than {data_dir} or this version has now: name the right "
            "one with tokenizer.name=…."
        )
    return tokenizer


def _environment() -> dict[str, Any]:
    root = Path(__file__).resolve().parent
    revision = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run(["git", "-C", root, "status", "--porcelain"], capture_output=True, text=True, check=False)
    return {
        "versions": {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES},
        "git": {"revision": revision.stdout.strip() or None, "changed": bool(changed.stdout.strip())},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {os.cpu_count()} cores",
    }


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # every rank writes the same
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
