"""What many runs wrote, read so that a broken one says so and spoils none of the others."""

import fcntl
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from glob import has_magic
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from analysis.budget import flops_per_token, n_parameters
from analysis.run_record import Series

PLACES = frozenset({"name", "runs_dir", "run_dir", "sweep_dir", "data_dir", "resume"})
"""Settings that say what a run is called, where it lies and how it was started."""
CHANGED = "changed under way"
_READ = ("train/loss", "speed/tokens_per_s", "val/")  # of a row
_MOST = {"max_steps": 10**12, "global_batch": 10**9, "model.max_seq_len": 10**9, "model.n_layers": 10**4}


class State(StrEnum):
    """What became of a run."""

    DONE = "done"
    RUNNING = "running"
    UNFINISHED = "unfinished"
    EMPTY = "no step logged"
    BROKEN = "broken"
    MISSING = "missing"


@dataclass(frozen=True)
class Run:
    """One run as far as it could be read."""

    path: Path
    name: str
    """Its path below the folder that all runs of the comparison share."""
    state: State
    note: str = ""
    """Why it is in that state, and what else is to be known of it."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """By dotted name, without `PLACES`; empty if config.yaml could not be read."""
    environment: Mapping[str, Any] = field(default_factory=dict)
    rows: tuple[Mapping[str, float], ...] = ()
    """By growing step; of what was logged, what a comparison shows."""
    samples: tuple[Mapping[str, Any], ...] = ()
    n_parameters: int = 0
    flops_per_token: float = 0.0

    @property
    def steps(self) -> int:
        """The schedule's length; 0 if config.yaml could not be read."""
        return int(self.settings.get("max_steps", 0))

    @property
    def tokens_per_step(self) -> int:
        """Padding included."""
        return int(self.settings["global_batch"] * self.settings["model.max_seq_len"])

    @property
    def last_step(self) -> int:
        """The last one that was logged; 0: none was."""
        return int(self.rows[-1]["step"]) if self.rows else 0

    @property
    def final(self) -> Mapping[str, float]:
        """The validation after the last step of a run that is done: `val/<kind>/<source>`; empty if there is none."""
        if self.state is not State.DONE:
            return {}
        return {key: value for key, value in self.rows[-1].items() if key.startswith("val/")}

    def series(self, key: str) -> Series:
        """(steps, values) of a metric, where it was logged."""
        pairs = [(row["step"], row[key]) for row in self.rows if key in row]
        steps, values = np.array(pairs, dtype=float).reshape(-1, 2).T
        return steps, values

    def hours_at(self, steps: np.ndarray) -> np.ndarray:
        """Hours of training alone up to each of `steps`: its tokens over the speed, summed over the rows; NaN where unknown."""
        at, speeds = self.series("speed/tokens_per_s")
        known = np.isfinite(speeds) & (speeds > 0)
        if not known.any():
            return np.full(len(steps), math.nan)
        at, speeds = at[known], speeds[known]
        begin = float(self.settings.get("branch.step") or 0)  # what its trunk took is not this run's
        seconds = np.cumsum(np.diff(at, prepend=begin) * self.tokens_per_step / speeds)
        hours: np.ndarray = np.interp(steps, [begin, *at], [0.0, *(seconds / 3600)], right=math.nan)
        return hours


class Unreadable(Exception):
    """Why a run cannot be read."""


def find_runs(patterns: str | Iterable[str]) -> list[Path]:
    """The folders that paths or patterns such as `runs/lr_sweep/*` name; a plain path also where nothing is.

    Raises:
        ValueError: they name none.
    """
    found: dict[Path, None] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        if not isinstance(pattern, str) or not pattern:
            raise ValueError(
                f"runs has {pattern!r}: it must be a path, a pattern like runs/lr_sweep/*, or a list of them."
            )
        literal = Path(pattern)
        if literal.exists() or not has_magic(pattern):
            found[literal] = None
        else:
            begin = literal.anchor or "."
            places = Path(begin).glob(str(literal.relative_to(literal.anchor)))
            found |= dict.fromkeys(path for path in sorted(places) if path.is_dir())
    if not found:
        raise ValueError(f"runs={patterns} names no folder: it takes paths of run directories, or a pattern of them.")
    return list(found)


def common_folder(paths: Iterable[Path]) -> Path:
    """The folder below which all runs lie."""
    return Path(os.path.commonpath([path.absolute().parent for path in paths]))


def read_runs(paths: Iterable[Path]) -> list[Run]:
    """Every run, whatever became of it, in the order given."""
    paths = list(paths)
    folder = common_folder(paths)
    return [_read_run(path, str(path.absolute().relative_to(folder))) for path in paths]


def _read_run(path: Path, name: str) -> Run:
    if not path.is_dir():
        return Run(path, name, State.MISSING, "there is no such folder")
    running = _is_locked(path)
    try:
        config, environment = _config(path / "config.yaml"), _environment(path / "environment.json")
        settings = dict(flatten(config))
        size = n_parameters(config["model"]), flops_per_token(config["model"])
    except Unreadable as reason:
        return Run(path, name, State.BROKEN, str(reason))
    except (KeyError, TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
        return Run(path, name, State.BROKEN, f"config.yaml describes no model ({type(error).__name__}: {error})")
    rows, torn = _rows(path / "metrics.jsonl")
    samples = tuple(row for row in _objects(path / "samples.jsonl") if row is not None and _is_sample(row))
    if changes := _changes(path / "changes.jsonl", settings):
        settings[CHANGED] = changes
    settings = {key: value for key, value in settings.items() if key not in PLACES}
    state, note = _state(rows, torn, int(settings["max_steps"]), running)
    return Run(path, name, state, note, settings, environment, rows, samples, *size)


def _state(rows: tuple[Mapping[str, float], ...], torn: int, steps: int, running: bool) -> tuple[State, str]:
    last = int(rows[-1]["step"]) if rows else 0
    if torn:
        return State.BROKEN, f"{torn:,} of the {len(rows) + torn:,} rows of metrics.jsonl cannot be read"
    if running:
        return State.RUNNING, f"at step {last:,} of {steps:,}"
    if not rows:
        return State.EMPTY, "it has logged no step, and nobody is training it"
    if last > steps:
        return State.BROKEN, f"metrics.jsonl tells of step {last:,}, and max_steps is {steps:,}"
    if last < steps:
        return State.UNFINISHED, f"at step {last:,} of {steps:,}, and nobody is training it"
    return State.DONE, "" if "val/loss/mean" in rows[-1] else "no validation after its last step"


def _is_locked(path: Path) -> bool:
    """Whether a process is training the run; only asked for if there is a lock, and held no longer than the question."""
    try:
        with (path / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases, which a run never writes, and with which a small file can describe a huge one."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError("it holds an alias")
        return super().compose_node(parent, index)


def _config(path: Path) -> dict[str, Any]:
    try:
        config = yaml.load(path.read_bytes(), Loader=_PlainLoader)
    except OSError as error:
        raise Unreadable(f"config.yaml cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Unreadable(f"config.yaml is no YAML ({' '.join(str(error).split())})") from error
    if not isinstance(config, dict) or not isinstance(config.get("model"), dict):
        raise Unreadable("config.yaml describes no model")
    settings = dict(flatten(config))
    for key, most in _MOST.items():
        value = settings.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= most:
            raise Unreadable(f"config.yaml has {key}={value!r}, which should be a whole number from 1 to {most:,}")
    return config


def _environment(path: Path) -> dict[str, Any]:
    try:
        environment = json.loads(path.read_bytes())
    except OSError as error:
        raise Unreadable(f"environment.json cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise Unreadable("environment.json is no JSON") from error
    data = environment.get("data") if isinstance(environment, dict) else None
    sources = list(data.values()) if isinstance(data, dict) else []
    told = all(isinstance(source, dict) and isinstance(source.get("fingerprint"), str) for source in sources)
    if not sources or not told or not isinstance(environment.get("tokenizer"), str):
        raise Unreadable("environment.json does not say which tokenizer and data the run had")
    return dict(environment)


def _rows(path: Path) -> tuple[tuple[Mapping[str, float], ...], int]:
    """(the rows by growing step, how many lines are none)."""
    rows: dict[int, dict[str, float]] = {}
    torn = 0
    for content in _objects(path):
        row = {key: value for key, value in (content or {}).items() if key == "step" or key.startswith(_READ)}
        numbers = all(
            isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**63) for value in row.values()
        )
        if numbers and isinstance(row.get("step"), int) and row["step"] >= 0:
            rows[row["step"]] = rows.get(row["step"], {}) | row
        else:
            torn += 1
    return tuple(rows[step] for step in sorted(rows)), torn


def _objects(path: Path) -> Iterator[dict[str, Any] | None]:
    """The objects of a JSON-lines file, None for a line that is none; a torn end is still being written."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except OSError:
        return
    for line in lines:
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            content = None
        yield content if isinstance(content, dict) else None


def _is_sample(row: Mapping[str, Any]) -> bool:
    return isinstance(row.get("step"), int) and all(isinstance(row.get(key), str) for key in ("prompt", "response"))


def _changes(path: Path, settings: Mapping[str, Any]) -> str:
    """The settings that were others before some step, in words."""
    changes = []
    for row in _objects(path):
        if row is not None and isinstance(row.get("changes"), dict):
            for key, pair in row["changes"].items():
                if key in settings and key not in PLACES and isinstance(pair, list) and len(pair) == 2:
                    changes.append(f"{key} from {pair[0]} to {pair[1]} after step {row.get('after_step')}")
    return "; ".join(changes)


def flatten(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of every leaf of nested mappings; a list is a leaf, and so is an empty mapping."""
    if isinstance(node, Mapping) and (node or not prefix):
        for key, value in node.items():
            yield from flatten(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, node
