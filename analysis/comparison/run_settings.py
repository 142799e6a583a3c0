"""A run's settings: those that decide its result, those that only say how it is made and watched, and how each is written."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from analysis.callbacks_that_change_results import callback_setting_prefixes

ABSENT = "—"
"""A setting that a run does not have."""
PATH_SETTINGS = frozenset({"name", "runs_dir", "run_dir", "sweep_dir", "jobs_at_once", "data_dir", "resume"})
"""Settings that say what a run is called, where it lies and how it was started."""
SEED = "seed"
TRUNK = "branch.run"
_WATCHING = ("log_every", "val_every", "callbacks.", "logger.", "max_hours")
_MAKING = ("data.workers", "data.prepare", "data.verify", "micro_batch", "hardware.")
_PROCESSES = ("trainer.devices", "trainer.num_nodes", "trainer.strategy")  # the batches and their gradient are the same
_COSMETIC = (*_WATCHING, *_MAKING, *_PROCESSES)


def is_logging_setting(key: str, deciders: tuple[str, ...] = ()) -> bool:
    """Whether a setting changes no result beyond rounding.

    Args:
        deciders: beginnings of the settings of callbacks that may change weights.
    """
    if key.startswith(deciders):
        return False
    return any(key == name.removesuffix(".") or (name.endswith(".") and key.startswith(name)) for name in _COSMETIC)


def described_settings(settings: Mapping[str, Any], environment: Mapping[str, Any]) -> dict[str, Any]:
    """A run's settings, and those of its surroundings that its results may depend on."""
    git, versions = environment.get("git"), environment.get("versions")
    around: dict[str, Any] = {
        "device": environment.get("device"),
        "weights at the start": environment.get("initial_weights"),
    }
    around |= {"git revision": str(git["revision"])[:10]} if isinstance(git, Mapping) and "revision" in git else {}
    around |= {
        f"version of {name}": version for name, version in (versions.items() if isinstance(versions, dict) else ())
    }
    return {**settings, **around}


def result_settings(
    settings: Mapping[str, Any], environment: Mapping[str, Any], trunk: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Of what describes a run all that decides its result, but for the seed: runs that agree in it repeat each other.

    Args:
        settings: of the run.
        environment: of the run.
        trunk: what decided the result of the run that it branched off from; it stands for that run's path, so that branches of
            trunks that differ in their seed alone are repeats, as their trunks are. None: there is no such run, or it cannot
            be read.
    """
    every = described_settings(settings, environment) | ({} if trunk is None else {TRUNK: trunk})
    deciders = callback_setting_prefixes(settings, all_that_may=True)
    return {key: value for key, value in every.items() if key != SEED and not is_logging_setting(key, deciders)}


def differing_settings(described: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys that have not the same value in all of them, in the order in which they first occur."""
    keys = dict.fromkeys(key for settings in described for key in settings)
    return [key for key in keys if len({setting_text(settings.get(key, ABSENT)) for settings in described}) > 1]


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """The shortest end of each dotted name that no other one has; the whole of one that is the end of another."""
    return {key: _shortest(key, keys) for key in keys}


def short_job_names(jobs: Sequence[str]) -> list[str]:
    """Names of a sweep's jobs, `optimizer.lr=0.001,seed=1`, with short names of settings and long fractions in four digits."""
    parts = [[part.partition("=") for part in job.split(",")] for job in jobs]
    short = short_names(list(dict.fromkeys(key for job in parts for key, _, _ in job)))
    return [" ".join(f"{short[key]}{equals}{_shorter(value)}" for key, equals, value in job) for job in parts]


def _shorter(text: str) -> str:
    try:
        return text if len(text) < 9 else f"{float(text):.4g}"
    except ValueError:
        return text


def _shortest(key: str, others: Sequence[str]) -> str:
    parts = key.split(".")
    ends = (".".join(parts[n:]) for n in range(len(parts) - 1, -1, -1))
    return next((end for end in ends if sum(f".{other}".endswith(f".{end}") for other in others) == 1), key)


def setting_text(value: Any) -> str:
    """A setting as it is read and compared."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.6g}" if float(f"{value:.6g}") == value else repr(value)
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def shorten_setting_names(text: str, most: int) -> str:
    """At most so many characters of it: its beginning and its end."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}…{text[len(text) - (most - 1) // 2 :]}"


def flatten(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of every leaf of nested mappings; a list is a leaf, and so is an empty mapping."""
    if isinstance(node, Mapping) and (node or not prefix):
        for key, value in node.items():
            yield from flatten(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, node
