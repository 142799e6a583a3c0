"""Read many runs. A broken run is reported and does not affect the others."""

import fcntl
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from analysis.callbacks_that_change_results import callback_setting_prefixes
from analysis.comparison.evaluation_section import read_evaluated_metrics
from analysis.comparison.find_runs import common_folder
from analysis.comparison.model_size import model_size
from analysis.comparison.run import Run, RunState
from analysis.comparison.run_settings import PATH_SETTINGS, TRUNK, flatten, leaves_results_unchanged, result_settings
from analysis.metrics_reader import LoggedMetrics
from gpt_lightning.early_end_file_names import ENDED_EARLY, PRUNED
from gpt_lightning.jsonl_reader import read_objects

CHANGED = "changed during the run"
_AROUND = ("device", "git.revision", "versions.")  # parts of a run's environment that its result may depend on
_READ = ("train/loss", "speed/tokens_per_s", "val/")  # metrics of a row that are read
_MOST = {"max_steps": 10**12, "global_batch": 10**9, "model.max_seq_len": 10**9, "model.n_layers": 10**3}


class UnreadableFile(Exception):
    """A run cannot be read. The message says why."""


def read_runs(paths: Iterable[Path]) -> list[Run]:
    """Read every run, in the given order, whatever its state.

    Args:
        paths: run directories.
    """
    paths = list(paths)
    folder = common_folder(paths)
    return [read_run(path, str(path.absolute().relative_to(folder))) for path in paths]


def read_run(path: Path, name: str, metrics: LoggedMetrics | None = None) -> Run:
    """Read one run.

    Args:
        path: the run's directory.
        name: the run's name in the comparison.
        metrics: the run's metrics, if they were read before.
    """
    if not path.is_dir():
        return Run(path, name, RunState.MISSING, "the folder does not exist")
    try:
        return _read(path, name, metrics)
    except UnreadableFile as reason:
        return Run(path, name, RunState.BROKEN, str(reason))
    except OSError as error:
        return Run(path, name, RunState.BROKEN, f"{Path(error.filename).name} cannot be read ({error.strerror})")


def _read(path: Path, name: str, metrics: LoggedMetrics | None) -> Run:
    running = _is_locked(path)
    settings, environment, sizes = _settings(path)
    metrics = metrics or LoggedMetrics.read(path / "metrics.jsonl", wanted=lambda key: key.startswith(_READ))
    samples = tuple(row for row in read_objects(path / "samples.jsonl") if row is not None and _is_sample(row))
    steps, at = int(settings["max_steps"]), metrics.last_step
    state, note = _state(metrics, steps, running)
    if state is RunState.UNFINISHED and (path / PRUNED).is_file():
        state, note = RunState.PRUNED, f"at step {at:,} of {steps:,}, because other runs were better"
    if state is RunState.UNFINISHED and (why := _ended_early(path, at=at)):
        state, note = RunState.ENDED_EARLY, f"at step {at:,} of {steps:,}: {why}"
    trunk = _trunk(settings, {path.resolve()})
    return Run(
        path, name, state, note, settings, environment, metrics, samples, read_evaluated_metrics(path), trunk, *sizes
    )


def _settings(path: Path) -> tuple[dict[str, Any], dict[str, Any], tuple[int, int]]:
    """(settings without `PATH_SETTINGS`, environment, (parameters, FLOPs per token)) of a run."""
    config, environment = _config(path / "config.yaml"), _environment(path / "environment.json")
    try:
        sizes = model_size(config["model"], environment)
    except (TypeError, ValueError, RuntimeError) as error:
        told = " ".join(str(error).split())
        raise UnreadableFile(f"config.yaml describes no model ({type(error).__name__}: {told})") from error
    settings = dict(flatten(config))
    if changes := _changes(path / "changes.jsonl", settings):
        settings[CHANGED] = changes
    return {key: value for key, value in settings.items() if key not in PATH_SETTINGS}, environment, sizes


def _trunk(settings: Mapping[str, Any], above: set[Path]) -> dict[str, Any] | None:
    """Settings of the trunk of a branched run that decide its result; None if there is no trunk or it cannot be read.

    Args:
        settings: settings of the branched run. The path of the trunk is relative to the working directory.
        above: the runs so far, which stops a run that is its own trunk.
    """
    path = settings.get(TRUNK)
    if not isinstance(path, str) or "\0" in path or Path(path).resolve() in above:
        return None
    try:
        trunk, environment, _ = _settings(Path(path))
    except UnreadableFile:
        return None
    return result_settings(trunk, environment, _trunk(trunk, above | {Path(path).resolve()}))


def _state(metrics: LoggedMetrics, steps: int, running: bool) -> tuple[RunState, str]:
    last, unreadable = metrics.last_step, metrics.n_unreadable
    if unreadable:
        return (
            RunState.BROKEN,
            f"{unreadable:,} of the {metrics.n_rows + unreadable:,} rows of metrics.jsonl cannot be read",
        )
    if running:
        return RunState.RUNNING, f"at step {last:,} of {steps:,}"
    if not metrics.n_rows:
        return RunState.EMPTY, "it has logged no step, and no process is training it"
    if last > steps:
        return RunState.BROKEN, f"metrics.jsonl has step {last:,}, but max_steps is {steps:,}"
    if last < steps:
        return RunState.UNFINISHED, f"at step {last:,} of {steps:,}, and no process is training it"
    return RunState.DONE, "" if "val/loss/mean" in metrics.at(last) else "no validation after its last step"


def _ended_early(path: Path, *, at: int) -> str | None:
    """Why a callback ended the run after its last row; None if none did."""
    try:
        ended = json.loads((path / ENDED_EARLY).read_bytes())
        return str(ended["why"]) if ended["step"] == at else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _is_locked(path: Path) -> bool:
    """Whether a process is training the run. The lock is only tested if it exists, and released at once."""
    try:
        with (path / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases, with which a small file could describe a huge one. A run never writes them."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError("it contains an alias")
        return super().compose_node(parent, index)


def _config(path: Path) -> dict[str, Any]:
    try:
        config = yaml.load(path.read_bytes(), Loader=_PlainLoader)
    except OSError as error:
        raise UnreadableFile(f"config.yaml cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UnreadableFile(f"config.yaml is not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(config, dict) or not isinstance(config.get("model"), dict):
        raise UnreadableFile("config.yaml describes no model")
    settings = dict(flatten(config))
    for key, most in _MOST.items():
        value = settings.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= most:
            raise UnreadableFile(f"config.yaml has {key}={value!r}, which must be a whole number from 1 to {most:,}")
    step = settings.get("branch.step")
    if step is not None and (
        not isinstance(step, int) or isinstance(step, bool) or not 0 <= step <= _MOST["max_steps"]
    ):
        raise UnreadableFile(f"config.yaml has branch.step={step!r}, which must be a whole number of steps, or null")
    return config


def _environment(path: Path) -> dict[str, Any]:
    try:
        environment = json.loads(path.read_bytes())
    except OSError as error:
        raise UnreadableFile(f"environment.json cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise UnreadableFile("environment.json is not JSON") from error
    data = environment.get("data") if isinstance(environment, dict) else None
    sources = list(data.values()) if isinstance(data, dict) else []
    told = all(isinstance(source, dict) and isinstance(source.get("fingerprint"), str) for source in sources)
    if not sources or not told or not isinstance(environment.get("tokenizer"), str):
        raise UnreadableFile("environment.json does not record the run's tokenizer and data")
    return dict(environment)


def _is_sample(row: Mapping[str, Any]) -> bool:
    return isinstance(row.get("step"), int) and all(isinstance(row.get(key), str) for key in ("prompt", "response"))


def _changes(path: Path, settings: Mapping[str, Any]) -> str:
    """Settings that decide the result and changed after some step, as text."""
    changes = []
    deciders = callback_setting_prefixes(settings, all_that_may=True)
    for row in read_objects(path):
        if row is not None and isinstance(row.get("changes"), dict):
            for key, pair in row["changes"].items():
                decides = key in settings and key not in PATH_SETTINGS and not leaves_results_unchanged(key, deciders)
                decides |= key.startswith(_AROUND)
                if decides and isinstance(pair, list) and len(pair) == 2:
                    then, now = (str(value)[:10] if key == "git.revision" else value for value in pair)
                    changes.append(f"{key} from {then} to {now} after step {row.get('after_step')}")
    return "; ".join(changes)
