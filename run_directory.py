"""The one folder that holds everything a run wrote.

runs/<name>/config.yaml          resolved           environment.json    versions, git revision, device, data
runs/<name>/checkpoints/         the newest three   tensorboard/
runs/<name>/metrics.jsonl        one row a step     samples.jsonl       training_<time>.log     report/
runs/<name>/plan.json plan.png   what was planned   curriculum_changes.jsonl   what was changed under way, if anything was
"""

import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import OmegaConf

from data_modules import SourceShards
from gpt_lightning.checkpoint import checkpoint_path, newest_valid_checkpoint, read_diet, verify
from launch import flatten

# Where a run runs, not what it is.
MAY_CHANGE = (
    {"data_dir", "runs_dir", "run_dir", "sweep_dir", "micro_batch"}
    | {f"data.{key}" for key in ("prepare", "verify", "workers")}
    | {f"trainer.{key}" for key in ("accelerator", "devices", "num_nodes", "strategy", "compile")}
)
_OF_THE_TRUNK = {"model", "tokenizer", "optimizer", "global_batch", "seed"}
_PACKAGES = ("torch", "lightning", "numpy", "tokenizers", "tiktoken", "hydra-core", "bitsandbytes")


class Beginning(NamedTuple):
    """Where a start of a run begins."""

    checkpoint: Path | None  # None: with fresh weights
    step: int  # steps that are completed
    diet: Mapping[str, Any] | None  # of the checkpoint, see `MixedDataModule.identity`
    branching: bool  # the checkpoint is another run's

    @property
    def sources(self) -> tuple[str, ...]:
        """Those that were trained on before."""
        return tuple(self.diet["sources"]) if self.diet else ()


class RunDirectory:
    """A run's folder, new or begun before.

    Args:
        path: the folder; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics = path / "metrics.jsonl"

    def beginning(self, config: Mapping[str, Any]) -> Beginning:
        """Where this start of the run begins: at its newest valid checkpoint, at its trunk's, or anew. Writes nothing.

        Raises:
            ValueError: the folder belongs to a run with other settings, all of its checkpoints are damaged, or it cannot branch
                off where `branch` says.
        """
        newest = self._newest_checkpoint(config) if (self.path / "environment.json").is_file() else None
        trunk, step = config["branch"]["run"], config["branch"]["step"]
        if trunk is None and step is not None:
            raise ValueError(f"branch.step is {step}, and branch.run names no run: set both of them or neither.")
        branching = newest is None and trunk is not None
        checkpoint = branch_point(config) if branching else newest
        if checkpoint is None:
            return Beginning(None, 0, None, False)
        return Beginning(checkpoint, int(checkpoint.stem.removeprefix("step_")), read_diet(checkpoint), branching)

    def _newest_checkpoint(self, config: Mapping[str, Any]) -> Path | None:
        self._refuse_other_settings(config)
        newest = newest_valid_checkpoint(self.path / "checkpoints")
        if newest is None and any((self.path / "checkpoints").glob("step_*.pt")):
            raise ValueError(
                f"no checkpoint in {self.path / 'checkpoints'} is undamaged: choose another name to begin anew."
            )
        return newest

    def begin(
        self,
        config: Mapping[str, Any],
        sources: Mapping[str, SourceShards],
        beginning: Beginning,
        initial_weights: str | None = None,
    ) -> dict[str, tuple[Any, Any]]:
        """Write down, once, what the run is made of; a second beginning must be of the same, but for its curriculum to come.

        Args:
            initial_weights: fingerprint of those that `init_from` gave; None: it gave none, or a checkpoint goes before them.

        Returns:
            the settings of the curriculum that have changed since, as (then, now).

        Raises:
            ValueError: they are others than when the run was begun.
        """
        data = {
            name: {
                "fingerprint": source.fingerprint,
                "train_tokens": len(source.train),
                "unigram_loss": source.information["unigram_loss"],
            }
            for name, source in sources.items()
        }
        if (self.path / "environment.json").is_file():
            environment = json.loads((self.path / "environment.json").read_text())
            if initial_weights not in (None, environment["initial_weights"]):
                raise ValueError(
                    f"{self.path} was begun with other weights than init_from={config['init_from']} holds by now: choose "
                    "another run with name=…."
                )
            if beginning.branching and _branched_from(beginning)["sha256"] != environment["branched_from"]["sha256"]:
                raise ValueError(
                    f"{self.path} branched off from another checkpoint than {beginning.checkpoint} is by now: choose another "
                    "run with name=…."
                )
            changes = self._record_change(config, beginning.step)
            if not set(data) <= set(environment["data"]):
                environment["data"] |= data
                _write(self.path / "environment.json", json.dumps(environment, indent=2) + "\n")
            return changes
        tokenizer = next(iter(sources.values())).information["tokenizer"]["fingerprint"]  # of all sources the same
        environment = _environment() | {"tokenizer": tokenizer, "initial_weights": initial_weights, "data": data}
        if beginning.branching:
            environment["branched_from"] = _branched_from(beginning)
        _write(self.path / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(config))))
        _write(self.path / "environment.json", json.dumps(environment, indent=2) + "\n")
        return {}

    def final_metrics(self) -> dict[str, float]:
        """The last value of every metric."""
        metrics: dict[str, float] = {}
        for line in self.metrics.read_text(encoding="utf-8").split("\n")[:-1]:
            metrics |= json.loads(line)
        return metrics

    def log_file(self) -> Path:
        """A log file for this start of the run."""
        return self.path / f"training_{time.strftime('%Y%m%d_%H%M%S')}.log"

    def refuse_other_data(self, beginning: Beginning, sources: Mapping[str, SourceShards]) -> None:
        """What the run, or its trunk, was trained on must still be what it was.

        Raises:
            ValueError: a source has other tokens.
        """
        record = self.path / "environment.json"
        begun = json.loads(record.read_text())["data"] if record.is_file() else {}
        of_checkpoint = beginning.diet["sources"] if beginning.diet else {}
        for name, source in sources.items():
            for then in (begun.get(name, {}).get("fingerprint"), of_checkpoint.get(name)):
                if then not in (None, source.fingerprint):
                    raise ValueError(
                        f"{self.path if begun else beginning.checkpoint} was begun with other tokens of source {name} "
                        f"(fingerprint {then[:12]}, now {source.fingerprint[:12]}): choose another run with name=…."
                    )

    def _refuse_other_settings(self, config: Mapping[str, Any]) -> None:
        for key, (then, now) in self._changes(config).items():
            if key not in MAY_CHANGE and not key.startswith(("curriculum.", "data.limit_tokens.")):
                raise ValueError(
                    f"{self.path} was begun with {key}={then}, and now it is {now}: choose another run with name=…, or set it "
                    "back to go on with this one."
                )

    def _record_change(self, config: Mapping[str, Any], step: int) -> dict[str, tuple[Any, Any]]:
        """A curriculum may change from a step on; config.yaml then says the new one, curriculum_changes.jsonl what it was."""
        changes = {key: pair for key, pair in self._changes(config).items() if key.startswith("curriculum.")}
        if changes and is_first_rank():
            with (self.path / "curriculum_changes.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps({"after_step": step, "changes": changes}) + "\n")
            begun: Any = OmegaConf.to_container(OmegaConf.load(self.path / "config.yaml"))
            _write(
                self.path / "config.yaml",
                OmegaConf.to_yaml(OmegaConf.create(begun | {"curriculum": config["curriculum"]})),
            )
        return changes

    def _changes(self, config: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """(then, now) of every setting that is not as in config.yaml."""
        then = dict(flatten(OmegaConf.to_container(OmegaConf.load(self.path / "config.yaml"))))
        now = dict(flatten(config))
        return {key: (then.get(key), now.get(key)) for key in then | now if then.get(key) != now.get(key)}


def is_first_rank() -> bool:
    """Whether this process, of those that torchrun or Slurm started, is the one that writes."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", os.environ.get("LOCAL_RANK", "0")))) == 0


def _branched_from(beginning: Beginning) -> dict[str, Any]:
    assert beginning.checkpoint is not None
    manifest = json.loads(beginning.checkpoint.with_suffix(".json").read_text())
    return {"checkpoint": str(beginning.checkpoint), "step": beginning.step, "sha256": manifest["sha256"]}


def branch_point(config: Mapping[str, Any]) -> Path:
    """The checkpoint of another run, its trunk, that a run branches off from.

    Raises:
        ValueError: there is none of that step, or the trunk is another kind of run.
    """
    trunk, step = Path(str(config["branch"]["run"])), config["branch"]["step"]
    if not (trunk / "config.yaml").is_file():
        raise ValueError(f"branch.run={trunk} is no run: name the folder of one.")
    if config["init_from"] is not None:
        raise ValueError("init_from and branch.run both say which weights to begin with: set only one of them.")
    folder = trunk / "checkpoints"
    steps = [int(path.stem.removeprefix("step_")) for path in sorted(folder.glob("step_*.pt"))]
    if not isinstance(step, int) or step not in steps:
        raise ValueError(
            f"branch.step is {'not given' if step is None else step}, and {folder} has checkpoints of the steps "
            f"{', '.join(map(str, steps)) or 'none'}: "
            "choose one of them, or train the trunk with another callbacks.checkpoints.every or keep."
        )
    if step >= config["max_steps"]:
        raise ValueError(f"branch.step is {step}: it must be below max_steps={config['max_steps']}.")
    then = dict(flatten(OmegaConf.to_container(OmegaConf.load(trunk / "config.yaml"))))
    now = dict(flatten(config))
    for key in then | now:
        if key.split(".")[0] in _OF_THE_TRUNK and then.get(key) != now.get(key):
            raise ValueError(
                f"branch.run={trunk} was trained with {key}={then.get(key)}, and now it is {now.get(key)}: a branch keeps the "
                "model, the tokenizer, the optimizer, the global batch and the seed of its trunk."
            )
    if "callbacks.mix_ledger._target_" in set(now) - set(then):
        raise ValueError(f"branch.run={trunk} was trained without callbacks.mix_ledger: leave it out here too.")
    checkpoint = checkpoint_path(folder, step)
    verify(checkpoint)
    return checkpoint


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
    """Replace a file as a whole; only the first rank does, which may yet refuse what the others have not looked at."""
    if not is_first_rank():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
