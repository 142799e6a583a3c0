"""The folder with everything that a run writes.

runs/<name>/config.yaml          resolved           environment.json    versions, git revision, command, data, sizes
runs/<name>/checkpoints/         the newest three   tensorboard/
runs/<name>/metrics.jsonl        one row per step   samples.jsonl       training_<time>.log     report/
runs/<name>/plan.json plan.png   the plan           changes.jsonl       settings that changed between starts, if any
runs/<name>/mix_weights.jsonl    one row per update of the mix weights, of a run with ADO
runs/<name>/faults.jsonl         skipped steps, if any                          lock, owner   during training
runs/<name>/pruned.json          where and why a run of a sweep was pruned, if it was pruned
runs/<name>/ended_early.json     after which step a callback ended the run early, and why, if a callback did
runs/<name>/saved.json           step of the last saved checkpoint; if none is left, the run does not restart
"""

import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from data_modules import SourceShards
from gpt_lightning.checkpoint_folder import (
    copy_to_permanent,
    mark_superseded,
    remove_partial_files,
    set_aside_invalid,
)
from gpt_lightning.device_and_precision import arithmetic_settings
from gpt_lightning.durable_files import sync_file, sync_folder
from gpt_lightning.jsonl_reader import last_row
from gpt_lightning.model import GPT
from gpt_lightning.model.model_size import flops_per_token
from running.config.own_imports import digests_of_imports
from running.config.run_config import RunConfig
from running.training.code_identity import git
from running.training.rank_processes import is_first_rank
from running.training.resume import ResumePoint, changed_since

_MIX_WEIGHTS_BEFORE = "weights.jsonl"  # name of mix_weights.jsonl in runs of earlier versions, which keep it
_PACKAGES = ("torch", "lightning", "numpy", "tokenizers", "tiktoken", "hydra-core", "bitsandbytes")


class RunDirectory:
    """The folder of a run, new or existing.

    Args:
        path: the folder, which need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics = path / "metrics.jsonl"
        old = path / _MIX_WEIGHTS_BEFORE
        self.mix_weights = old if old.is_file() else path / "mix_weights.jsonl"

    def refuse_other_weights(self, config: RunConfig, beginning: ResumePoint, initial_weights: str | None) -> None:
        """Check that the initial weights equal the weights that the run started with.

        Args:
            config: config of the run.
            beginning: where this start of the run begins.
            initial_weights: fingerprint of the weights from `init_from`; None: there is no `init_from`, or the run
                starts from a checkpoint.

        Raises:
            ValueError: the run was started with other weights, or branched off from another checkpoint.
        """
        record = self.path / "environment.json"
        if not record.is_file():
            return
        environment = json.loads(record.read_text())
        if initial_weights not in (None, environment["initial_weights"]):
            raise ValueError(
                f"{self.path} was started with weights that differ from those in init_from={config.init_from} now: start a "
                "new run with name=…."
            )
        if beginning.branching and _branched_from(beginning)["sha256"] != environment["branched_from"]["sha256"]:
            raise ValueError(
                f"{self.path} branched off from {beginning.checkpoint}, which has changed since: choose another "
                "run with name=…."
            )

    def begin(
        self,
        config: RunConfig,
        sources: Mapping[str, SourceShards],
        beginning: ResumePoint,
        model: GPT,
        initial_weights: str | None = None,
    ) -> dict[str, tuple[Any, Any]]:
        """Record what defines the run, once, and later what has changed. Move away damaged and superseded checkpoints.

        Args:
            config: config of the run.
            sources: sources of the run.
            beginning: where this start begins.
            model: model of the run.
            initial_weights: fingerprint of the weights from `init_from`, if any.

        Returns:
            Changed settings, versions and devices, as (then, now).
        """
        data = {
            name: {
                "fingerprint": source.fingerprint,
                "files": source.states_by_name,
                "train_tokens": len(source.train),
                "unigram_loss": source.information["unigram_loss"],
            }
            for name, source in sources.items()
        }
        if (self.path / "environment.json").is_file():
            environment = json.loads((self.path / "environment.json").read_text())
            now = _environment(config.imports)
            then = {key: environment.get(key, now[key]) for key in now}  # an older version recorded less
            elsewhere = {key: pair for key, pair in changed_since(then, now).items() if key != "git.changed"}
            if is_first_rank():
                for path in beginning.damaged:
                    set_aside_invalid(path)
                folder = self.path / "checkpoints"
                times = len(list((folder / "given_up").glob("*")))
                for path in beginning.given_up:
                    mark_superseded(path, folder / "given_up" / str(times + 1))
                remove_partial_files(folder)
                self._record(config, beginning, elsewhere)
            data = environment["data"] | data
            if elsewhere or data != environment["data"] or not set(now) <= set(environment):
                environment |= now | {"data": data}
                _write(self.path / "environment.json", json.dumps(environment, indent=2) + "\n")
            return {**beginning.changes, **elsewhere}
        tokenizer = next(iter(sources.values())).information["tokenizer"]["fingerprint"]  # the same for all sources
        sizes = {"parameters": model.n_parameters(), "flops_per_token": flops_per_token(model)}
        begun_with = {"command": _command(), "tokenizer": tokenizer, "initial_weights": initial_weights, "data": data}
        environment = _environment(config.imports) | begun_with | {"model": sizes}
        if beginning.branching:
            environment["branched_from"] = _branched_from(beginning)
        self._write_config(config)
        _write(self.path / "environment.json", json.dumps(environment, indent=2) + "\n")
        if is_first_rank():
            self._record(config, beginning, {})
        return dict(beginning.changes)

    def final_metrics(self) -> dict[str, float]:
        """The last row of metrics.jsonl, with the metrics of the last validation."""
        return last_row(self.metrics, having=b'"val/') | last_row(self.metrics)

    def last_step(self) -> int:
        """The last step in metrics.jsonl; 0 if there is none."""
        return int(last_row(self.metrics).get("step", 0))

    def log_file(self) -> Path:
        """Path of a log file for this start of the run."""
        return self.path / f"training_{time.strftime('%Y%m%d_%H%M%S')}.log"

    def refuse_other_data(self, beginning: ResumePoint, sources: Mapping[str, SourceShards]) -> None:
        """Check that the sources are the sources that the run, or its trunk, was trained on.

        Args:
            beginning: where this start of the run begins.
            sources: sources of the run.

        Raises:
            ValueError: the tokens of a source differ.
        """
        record = self.path / "environment.json"
        begun = json.loads(record.read_text())["data"] if record.is_file() else {}
        of_checkpoint = beginning.diet["sources"] if beginning.diet else {}
        for name, source in sources.items():
            for then in (begun.get(name, {}).get("fingerprint"), of_checkpoint.get(name)):
                if then not in (None, source.fingerprint):
                    raise ValueError(
                        f"source {name} has changed since {self.path if begun else beginning.checkpoint} was started "
                        f"(its fingerprint was {then[:12]} and is now {source.fingerprint[:12]}): restore or prepare "
                        "again the original data, or start a new run with name=…."
                    )

    def states_of_data(self) -> dict[str, dict[str, str]]:
        """Source -> states of the source's files at the last start of the run, see `SourceShards.states_by_name`."""
        record = self.path / "environment.json"
        data = json.loads(record.read_text())["data"] if record.is_file() else {}
        return {name: of_source.get("files", {}) for name, of_source in data.items()}

    def _record(self, config: RunConfig, beginning: ResumePoint, elsewhere: Mapping[str, Any]) -> None:
        """Write the new settings to config.yaml, and a row with the old and new ones and the step to changes.jsonl."""
        row: dict[str, Any] = {"after_step": beginning.step, "changes": {**beginning.changes, **elsewhere}}
        if beginning.named:
            assert beginning.checkpoint is not None
            copy_to_permanent(beginning.checkpoint, self.path / "checkpoints")
            row["resumed_from"] = str(Path(config.resume))
        elif not row["changes"]:
            return
        path = self.path / "changes.jsonl"
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        _write(path, before + json.dumps(row) + "\n")
        self._write_config(config)

    def _write_config(self, config: RunConfig) -> None:
        _write(self.path / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(config.settings))))


def _branched_from(beginning: ResumePoint) -> dict[str, Any]:
    return {"checkpoint": str(beginning.checkpoint), "step": beginning.step, "sha256": _sha256(beginning)}


def _sha256(beginning: ResumePoint) -> str:
    assert beginning.checkpoint is not None
    manifest = json.loads(beginning.checkpoint.with_suffix(".json").read_text())
    return str(manifest["sha256"])


def _environment(imports: Iterable[str]) -> dict[str, Any]:
    return {
        "imports": digests_of_imports(imports),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES},
        "git": {"revision": git("rev-parse", "HEAD") or None, "changed": bool(git("status", "--porcelain"))},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {os.cpu_count()} cores",
        "arithmetic": arithmetic_settings(),
    }


def _command() -> str | None:
    """The command line of train.py, to be typed again; None: this process is another program, such as a notebook."""
    script = next((n for n, argument in enumerate(sys.orig_argv) if n and Path(argument).name == "train.py"), None)
    return None if script is None else shlex.join(["python", *sys.orig_argv[script:]])


def _write(path: Path, text: str) -> None:
    """Replace a file atomically. Only the first rank writes, and it may still refuse the run for the others."""
    if not is_first_rank():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        sync_file(file)
    temporary.replace(path)
    sync_folder(path.parent)
