"""Names of the jobs of a multirun and of the jobs' folders: the settings on the axes."""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override

from running.config.path_and_name_settings import MOST_BYTES

# prefix in exclude_keys: choices of this axis differ only in characters that folder names cannot have
_ALIKE = "~"


def job_name(hydra: Any) -> str:
    """Name of a job: the job's settings on the axes.

    Invalid characters become _, and the end of a long name becomes a digest.

    Args:
        hydra: Hydra's config of the job.
    """
    said = set(hydra.job.config.override_dirname.exclude_keys)
    settings = [setting for setting in hydra.overrides.task if setting.split("=")[0].lstrip("+") not in said]
    name = ",".join(
        _with_digest(setting) if _ALIKE + setting.split("=")[0].lstrip("+") in said else _fit(setting)
        for setting in settings
    )
    return _shortened(name) or f"job={hydra.job.num}"


def excluded_keys(fixed: Sequence[Override], axes: Sequence[Override]) -> str:
    """A setting for `job_name` that says which settings are not part of job names, and which axes need digests.

    This setting is part of the config, so it also applies if a launcher runs the job on another machine.

    Args:
        fixed: settings that are the same in all jobs.
        axes: settings that vary.
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
    """Append a digest of the parsed value. Different quoting of the same text gives the same name."""
    value = OverridesParser.create().parse_override(setting).value()
    return f"{_fit(setting)}-{_digest(repr(value))}"


def _shortened(name: str) -> str:
    if len(name.encode()) <= MOST_BYTES:
        return name
    digest = _digest(name)
    return f"{name.encode()[: MOST_BYTES - len(digest) - 1].decode(errors='ignore')}-{digest}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:10]
