"""A run's settings: which settings affect the result and which only the execution, and how settings are written."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from analysis.callbacks_that_change_results import callback_setting_prefixes
from gpt_lightning.setting_roles import SETTINGS, Role, has_role

ABSENT = "—"
"""Text for a setting that a run does not have."""
PATH_SETTINGS = frozenset(
    key
    for key, setting in SETTINGS.items()
    if setting.role is Role.PLACE or (setting.is_path and setting.role is not Role.RESULT)
)
"""Settings for the name, folder and data of a run, and for the checkpoint where the run was started."""
SEED = "seed"
TRUNK = "branch.run"


def leaves_results_unchanged(key: str, deciders: tuple[str, ...] = ()) -> bool:
    """Whether results do not depend on a setting, except for rounding.

    Such settings are the settings of logging, validation, data loading, micro-batch and number of processes.

    Args:
        key: dotted name of the setting.
        deciders: prefixes of settings of callbacks that may change weights; the result is False for these settings.
    """
    return not (key.startswith(deciders) or has_role(key, Role.RESULT, Role.ROUNDING))


def described_settings(settings: Mapping[str, Any], environment: Mapping[str, Any]) -> dict[str, Any]:
    """A run's settings, and the parts of the environment that the results may depend on.

    Args:
        settings: settings of the run, by dotted name.
        environment: environment of the run.
    """
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
    """The settings and environment of a run that affect the result, without the seed.

    Runs in which these are equal are repeats.

    Args:
        settings: settings of the run, by dotted name.
        environment: environment of the run.
        trunk: the same for the run's trunk, if the run is a branch; None: there is no trunk, or it cannot be read.
            These settings replace the trunk's path, so that branches of trunks that differ only in the seed are repeats
            too.
    """
    every = described_settings(settings, environment) | ({} if trunk is None else {TRUNK: trunk})
    deciders = callback_setting_prefixes(settings, all_that_may=True)
    return {key: value for key, value in every.items() if key != SEED and not leaves_results_unchanged(key, deciders)}


def differing_settings(described: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys whose values are not all the same, in the order in which they first occur.

    Args:
        described: settings of each run, by dotted name.
    """
    keys = dict.fromkeys(key for settings in described for key in settings)
    return [key for key in keys if len({setting_text(settings.get(key, ABSENT)) for settings in described}) > 1]


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Dotted name -> shortest unique suffix of the name; the whole name if it is a suffix of another name.

    Args:
        keys: dotted names.
    """
    return {key: _shortest(key, keys) for key in keys}


def short_job_names(jobs: Sequence[str]) -> list[str]:
    """Names of a sweep's jobs (`optimizer.lr=0.001,seed=1`) with short setting names and rounded fractions.

    Args:
        jobs: names of jobs, `key=value` joined by commas.
    """
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
    """A value as text, for display and comparison."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.6g}" if float(f"{value:.6g}") == value else repr(value)
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def shorten_setting_names(text: str, most: int) -> str:
    """At most `most` characters of a text: its beginning and its end.

    Args:
        text: the text.
        most: maximum number of characters.
    """
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}…{text[len(text) - (most - 1) // 2 :]}"


def flatten(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of every leaf of nested mappings. Lists and empty mappings are leaves.

    Args:
        node: nested mappings.
        prefix: dotted name of `node`.
    """
    if isinstance(node, Mapping) and (node or not prefix):
        for key, value in node.items():
            yield from flatten(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, node
