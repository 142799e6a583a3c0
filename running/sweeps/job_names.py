"""What the jobs of a multirun are called: by their settings on its axes, and so are their folders."""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override

from running.config.path_and_name_settings import MOST_BYTES

_ALIKE = "~"  # in exclude_keys: the choices of this axis differ only in signs that no folder's name has


def job_name(hydra: Any) -> str:
    """A job's settings on the axes, fit to name a folder: what has no place there is _, and what is too long ends in a digest."""
    said = set(hydra.job.config.override_dirname.exclude_keys)
    settings = [setting for setting in hydra.overrides.task if setting.split("=")[0].lstrip("+") not in said]
    name = ",".join(
        _with_digest(setting) if _ALIKE + setting.split("=")[0].lstrip("+") in said else _fit(setting)
        for setting in settings
    )
    return _shortened(name) or f"job={hydra.job.num}"


def excluded_keys(fixed: Sequence[Override], axes: Sequence[Override]) -> str:
    """A setting that tells `job_name`, wherever a launcher brings a job, which settings name no job, and which axes need digests.

    Args:
        fixed: settings that are the same in all jobs.
        axes: those that are not.
    """
    alike = [axis.key_or_group for axis in axes if _are_alike(axis)]
    keys = [*(o.key_or_group for o in fixed), *(_ALIKE + key for key in alike)]
    return f"hydra.job.config.override_dirname.exclude_keys=[{','.join(map(repr, keys))}]"


def _are_alike(axis: Override) -> bool:
    if not axis.is_discrete_sweep() or isinstance(axis.value(), Glob):
        return False
    names = Counter(map(_fit, axis.sweep_string_iterator()))
    return max(names.values(), default=0) > 1


def _fit(text: str) -> str:
    return re.sub(r"[^\w.,=+-]", "_", text)


def _with_digest(setting: str) -> str:
    """Of what is meant, so that other quotes around the same text are the same job."""
    value = OverridesParser.create().parse_override(setting).value()
    return f"{_fit(setting)}-{_digest(repr(value))}"


def _shortened(name: str) -> str:
    if len(name.encode()) <= MOST_BYTES:
        return name
    digest = _digest(name)
    return f"{name.encode()[: MOST_BYTES - len(digest) - 1].decode(errors='ignore')}-{digest}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:10]
