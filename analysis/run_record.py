"""What one run wrote, as arrays."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

Series = tuple[np.ndarray, np.ndarray]
"""(steps, values), both (n,)."""


@dataclass(frozen=True)
class Curves:
    """What of a run changes from step to step, whoever wrote it down."""

    title: str
    loss: Series  # nats per loss-bearing token
    learning_rate: Series
    tokens_per_s: Series
    memory_gb: Series
    memory_of_gpu: bool
    saved: Sequence[int]  # steps with a checkpoint
    resumed: Sequence[int]  # steps at which the run was interrupted, and went on
    validation: Series = (np.empty(0), np.empty(0))  # mean loss of the sources


class RunRecord:
    """The records of a run directory, read once.

    Raises:
        ValueError: the folder holds no run, or one that has not logged a step yet.
    """

    def __init__(self, path: Path) -> None:
        if not (path / "environment.json").is_file():
            raise ValueError(f"{path} holds no run: train one with python train.py name={path.name}.")
        self.path = path
        self.environment: dict[str, Any] = _object(path / "environment.json", (path / "environment.json").read_bytes())
        self.rows = read_rows(path / "metrics.jsonl")
        self.samples = read_rows(path / "samples.jsonl")
        if not self.rows:
            raise ValueError(f"{path} has not logged a step yet: wait, or start it again.")

    @cached_property
    def settings(self) -> str:
        """config.yaml as it is written."""
        path = self.path / "config.yaml"
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""

    @cached_property
    def changes(self) -> list[dict[str, Any]]:
        """What was changed at a resume: `after_step`, and `changes` as key -> (then, now)."""
        return read_rows(self.path / "changes.jsonl")

    @cached_property
    def faults(self) -> list[dict[str, Any]]:
        """Steps that were left out, or ended the run."""
        return read_rows(self.path / "faults.jsonl")

    @property
    def responses(self) -> dict[str, list[tuple[int, str]]]:
        """What was asked -> (step, what the model made of it) through time."""
        through_time: dict[str, list[tuple[int, str]]] = {}
        for sample in self.samples:
            through_time.setdefault(asked(sample), []).append((sample["step"], sample["response"]))
        return through_time

    @property
    def sources(self) -> list[str]:
        """In the order of the curriculum."""
        return list(self.environment["data"])

    def series(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """(steps, values) of a metric, where it was logged; both empty if it never was."""
        pairs = [(row["step"], row[key]) for row in self.rows if key in row]
        steps, values = np.array(pairs, dtype=float).reshape(-1, 2).T
        return steps, values

    def by_source(self, prefix: str) -> tuple[np.ndarray, np.ndarray]:
        """(steps, values) of a metric that every source has, values (sources, steps); 0 where a source did not take part yet."""
        rows = [row for row in self.rows if any(f"{prefix}/{source}" in row for source in self.sources)]
        values = [[row.get(f"{prefix}/{source}", 0.0) for row in rows] for source in self.sources]
        return np.array([row["step"] for row in rows], dtype=float), np.array(values, dtype=float)

    def last(self, key: str) -> float | None:
        """The newest value of a metric; None if it was never logged."""
        values = self.series(key)[1]
        return float(values[-1]) if len(values) else None

    def unigram_perplexity(self, source: str) -> float:
        """Of the unigram model of the source's training tokens, on its whole validation split."""
        return float(np.exp(self.environment["data"][source]["unigram_loss"]))

    @property
    def saved_steps(self) -> list[int]:
        """Steps at which a checkpoint was saved, as the logs of all starts of the run say."""
        return self._steps_in_logs(r"saved checkpoints/(?:\w+/)?step_(\d+)\.pt")

    @property
    def resumed_steps(self) -> list[int]:
        """Steps after which the run went on once it had been interrupted."""
        return self._steps_in_logs(r"going on after step (\d+), from")

    @property
    def curves(self) -> Curves:
        """What changes from step to step."""
        of_gpu = self.last("memory/gpu_gb") is not None
        return Curves(
            title=f"{self.path.name}: {self.rows[-1].get('tokens', 0) / 1e6:,.2f} million tokens",
            loss=self.series("train/loss"),
            validation=self.series("val/loss/mean"),
            learning_rate=self.series("train/lr"),
            tokens_per_s=self.series("speed/tokens_per_s"),
            memory_gb=self.series("memory/gpu_gb" if of_gpu else "memory/rss_gb"),
            memory_of_gpu=of_gpu,
            saved=self.saved_steps,
            resumed=self.resumed_steps,
        )

    def _steps_in_logs(self, pattern: str) -> list[int]:
        return sorted({int(step) for step in re.findall(pattern, self._logs)})

    @cached_property
    def _logs(self) -> str:
        return "".join(
            path.read_text(encoding="utf-8", errors="replace") for path in sorted(self.path.glob("training_*.log"))
        )


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file that ends with a whole line, or less; none if there is no file."""
    if not path.is_file():
        return []
    return [_object(path, line) for line in path.read_bytes().split(b"\n")[:-1]]


def _object(path: Path, text: bytes) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path} was not written by a run: it holds something else than JSON ({error}).") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} was not written by a run: it holds {type(content).__name__} where an object should be."
        )
    return content


def smooth(values: np.ndarray) -> np.ndarray:
    """A mean around each value, weighted by a Gaussian of a fortieth of them; at the ends, over those that there are."""
    if not len(values):
        return values
    width = min(max(len(values) / 40, 0.5), 200)
    reach = math.ceil(5 * width)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    sums, weights = (np.convolve(of, kernel)[reach:-reach] for of in (values, np.ones(len(values))))
    smoothed: np.ndarray = sums / weights
    return smoothed


def asked(sample: Mapping[str, Any]) -> str:
    """The prompt; the same words as a message and as a text to go on with are two."""
    prompt: str = sample["prompt"]
    return f"{prompt} (as a message)" if sample.get("chat") else prompt
