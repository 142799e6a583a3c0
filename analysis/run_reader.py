"""Read what one run wrote into arrays."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from glob import has_magic
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from analysis.metrics_reader import LoggedMetrics, Series
from gpt_lightning.jsonl_reader import read_objects
from gpt_lightning.setting_roles import Role, has_role


@dataclass(frozen=True)
class Curves:
    """What changes from step to step, in a run of ours or in other text logs."""

    title: str
    loss: Series  # nats per loss-bearing token
    learning_rate: Series
    tokens_per_s: Series
    memory_gb: Series
    memory_of_gpu: bool
    saved: Sequence[int]  # steps with a checkpoint
    resumed: Sequence[int]  # steps at which the run was interrupted and resumed
    changed: Sequence[int] = ()  # steps after which settings changed
    validation: Series = (np.empty(0), np.empty(0))  # mean loss of the sources
    ours: bool = True
    """Whether a run of ours measured this, so that the meaning of loss, speed and memory is known."""


_READ = ("train/loss", "train/lr", "memory/", "mix/", "val/")  # metrics that a report uses
_READ_ALONE = ("tokens", "speed/tokens_per_s")
_KINDS = ("loss", "perplexity", "bits_per_byte")  # of val/<kind>/<source>


class ValidationResult(NamedTuple):
    """The validation of one source, or the mean of all sources."""

    source: str
    loss: float
    """Nats per loss-bearing token."""
    perplexity: float
    unigram_perplexity: float | None
    """See `LoggedRun.unigram_perplexity`; None for the mean."""
    bits_per_byte: float


class LoggedRun:
    """The records of a run directory, read once. Unreadable lines are skipped and counted.

    Args:
        path: the run directory.

    Raises:
        ValueError: the folder is not a run, or the run has not logged a step yet.
    """

    def __init__(self, path: Path) -> None:
        if not (path / "environment.json").is_file():
            raise ValueError(f"{path} is not a run: {_instead(path)}.")
        self.path = path
        self.unreadable: dict[str, int] = {}
        """File -> number of unreadable lines; files without any are not included."""
        self.environment = _environment(path / "environment.json")
        self.metrics = LoggedMetrics.read(path / "metrics.jsonl", wanted=_is_drawn)
        if self.metrics.n_unreadable:
            self.unreadable["metrics.jsonl"] = self.metrics.n_unreadable
        self.samples = self._read("samples.jsonl", step=int, prompt=str, response=str)
        self.changes = [
            (row["after_step"], key, pair)
            for row in self._read("changes.jsonl", after_step=int, changes=dict)
            for key, pair in row["changes"].items()
            if not has_role(key, Role.PLACE, Role.START, Role.OBSERVATION)
        ]
        """(after which step, setting, [then, now]) of changes at a resume, without settings that only observe."""
        self.faults = self._read("faults.jsonl", step=int, fault=str)
        """Steps that were skipped, or that ended the run."""
        if not self.metrics.n_rows:
            raise ValueError(f"{path} has not logged a step yet: wait, or run it again.")

    @cached_property
    def settings(self) -> str:
        """The text of config.yaml."""
        path = self.path / "config.yaml"
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""

    @property
    def responses(self) -> dict[str, list[tuple[int, str]]]:
        """Prompt -> (step, response) in the order of the steps."""
        through_time: dict[str, list[tuple[int, str]]] = {}
        for sample in self.samples:
            through_time.setdefault(prompt_label(sample), []).append((sample["step"], sample["response"]))
        return through_time

    @property
    def sources(self) -> list[str]:
        """The sources, in the order of the curriculum."""
        return list(self.environment["data"])

    @property
    def title(self) -> str:
        """The run's name and progress."""
        tokens = self.metrics.last("tokens")
        said = "" if tokens is None else f", {tokens / 1e6:,.2f} million tokens"
        return f"{self.path.name}: {self.metrics.last_step:,} steps{said}"

    def by_source(self, prefix: str) -> Series:
        """(steps, values (sources, steps)) of a metric that every source has; 0 where a source has no value yet.

        Args:
            prefix: prefix of the metric's name, in front of "/<source>".
        """
        return self.metrics.table([f"{prefix}/{source}" for source in self.sources])

    def unigram_perplexity(self, source: str) -> float:
        """Perplexity of the unigram model of the source's training tokens, on the source's whole validation split."""
        return float(np.exp(self.environment["data"][source]["unigram_loss"]))

    @property
    def validation(self) -> list[ValidationResult]:
        """The newest validation of each validated source, and of the mean over sources."""
        validated = []
        for source in [*self.sources, "mean"]:
            loss, perplexity, bits = (self.metrics.last(f"val/{kind}/{source}") for kind in _KINDS)
            if loss is not None and perplexity is not None and bits is not None:
                unigram = None if source == "mean" else self.unigram_perplexity(source)
                validated.append(ValidationResult(source, loss, perplexity, unigram, bits))
        return validated

    @property
    def saved_steps(self) -> list[int]:
        """Steps at which a checkpoint was saved, from the logs of all starts of the run."""
        return self._steps_in_logs(r"saved checkpoints/(?:\w+/)?step_(\d+)\.pt")

    @property
    def resumed_steps(self) -> list[int]:
        """Steps after which the run was interrupted and resumed."""
        return self._steps_in_logs(r"(?:continuing|going on) after step (\d+), from")

    @property
    def curves(self) -> Curves:
        """The curves of the run."""
        of_gpu = self.metrics.last("memory/gpu_gb") is not None
        return Curves(
            title=self.title,
            loss=self.metrics.series("train/loss"),
            validation=self.metrics.series("val/loss/mean"),
            learning_rate=self.metrics.series("train/lr"),
            tokens_per_s=self.metrics.series("speed/tokens_per_s"),
            memory_gb=self.metrics.series("memory/gpu_gb" if of_gpu else "memory/rss_gb"),
            memory_of_gpu=of_gpu,
            saved=self.saved_steps,
            resumed=self.resumed_steps,
            changed=sorted({step for step, _, _ in self.changes}),
        )

    def _read(self, name: str, **fields: Any) -> list[dict[str, Any]]:
        """The rows of a file that have these fields with these types. Other rows are counted as unreadable."""
        rows = list(read_objects(self.path / name))
        right = [row for row in rows if row is not None and all(isinstance(row.get(k), t) for k, t in fields.items())]
        if len(right) < len(rows):
            self.unreadable[name] = len(rows) - len(right)
        return right

    def _steps_in_logs(self, pattern: str) -> list[int]:
        said = rf"^\[[\d :-]+\] {pattern}"  # lines of the run itself; samples are indented
        return sorted({int(step) for step in re.findall(said, self._logs, re.MULTILINE)})

    @cached_property
    def _logs(self) -> str:
        return "".join(
            path.read_text(encoding="utf-8", errors="replace") for path in sorted(self.path.glob("training_*.log"))
        )


def _is_drawn(key: str) -> bool:
    return key in _READ_ALONE or (key.startswith(_READ) and not key.startswith("mix/tokens/"))


def _environment(path: Path) -> dict[str, Any]:
    try:
        environment = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        environment = None
    if not isinstance(environment, dict) or not isinstance(environment.get("data"), dict):
        raise ValueError(f"{path} does not record a run's data: it is damaged, or another program wrote it.")
    return environment


def _instead(path: Path) -> str:
    """What to do if the path is not a run."""
    if has_magic(str(path)) and not path.exists():
        return "run= takes a single run; use runs= to compare all runs of a pattern"
    if path.is_file():
        return "it is a file; give the run's folder"
    runs = sorted(inner.parent for inner in path.glob("*/environment.json"))
    if runs:
        return f"choose one of the {len(runs)} runs in it, such as run={runs[0]}, or compare them with runs='{path}/*'"
    named = Path("runs") / path.name
    if (named / "environment.json").is_file():
        return f"the run of that name is run={named}"
    return f"train one with python train.py name={path.name}"


def prompt_label(sample: Mapping[str, Any]) -> str:
    """The prompt. A prompt sent as a chat message is marked, because the same words as a text are another prompt.

    Args:
        sample: a row of samples.jsonl.
    """
    prompt: str = sample["prompt"]
    return f"{prompt} (as a message)" if sample.get("chat") else prompt
