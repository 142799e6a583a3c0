"""The choices on the axes of a sweep, which are the settings with several values."""

import math
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override, RangeSweep
from omegaconf import DictConfig

_SHOWN = 20  # values of a range in a message


def expand_jobs(parsed: Sequence[Override], folders: Sequence[Path]) -> Iterable[list[str]]:
    """Settings of jobs in which every choice of every axis occurs once. These are not all combinations.

    Args:
        parsed: the settings of the sweep, axes and others.
        folders: config folders of the sweep.

    Returns:
        Settings of each job.

    Raises:
        ValueError: an axis has a choice twice, or no choice.
    """
    choices = [_choices(o, folders) for o in parsed]
    first = [texts[0] for texts in choices]
    others = ([*first[:n], text, *first[n + 1 :]] for n, texts in enumerate(choices) for text in texts[1:])
    return chain([first], others)


def count_jobs(config: DictConfig) -> int | None:
    """Number of jobs in a multirun; None if a search decides it.

    Args:
        config: config of the multirun as a whole, including `hydra`.
    """
    if not _is_grid(config):
        return None
    parsed = OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
    typed = {o.key_or_group for o in parsed}
    of_file = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items() if key not in typed]
    folders = [Path(source.path) for source in config.hydra.runtime.config_sources if source.schema == "file"]
    last = {o.key_or_group: o for o in [*OverridesParser.create().parse_overrides(of_file), *parsed]}
    return math.prod(len(_choices(o, folders)) for o in last.values())


def has_no_axes(config: DictConfig) -> bool:
    """Whether no setting of a multirun has several choices, on the command line or in a config.

    Args:
        config: config of the multirun as a whole, including `hydra`.
    """
    parsed = OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
    return _is_grid(config) and not config.hydra.sweeper.params and not any(o.is_sweep_override() for o in parsed)


def _is_grid(config: DictConfig) -> bool:
    return str(config.hydra.sweeper._target_).endswith(".BasicSweeper")


def check_exact_range(axis: Override) -> None:
    """Refuse a range of floats that may or may not include its stop because of rounding in Hydra.

    Args:
        axis: a setting on the command line.

    Raises:
        ValueError: the last value is not the stop. The message lists the values.
    """
    value = axis.value()
    if not isinstance(value, RangeSweep) or isinstance(value.range(), range):
        return
    values = [f"{number:.12g}" for number in value.range()]
    assert value.stop is not None
    if values and not math.isclose(float(values[-1]), value.stop, rel_tol=1e-9, abs_tol=1e-300):
        shown = values if len(values) <= _SHOWN else [*values[:2], "…", values[-1]]
        raise ValueError(
            f"{axis.input_line} gives {len(values)} values, {', '.join(shown)}, without its stop {value.stop}: type "
            f"the values that you mean, such as {axis.get_key_element()}={','.join(shown)}"
        )


def _choices(override: Override, folders: Sequence[Path]) -> list[str]:
    """The values of a setting in the jobs; of an interval, its ends."""
    if not override.is_sweep_override():
        return [str(override.input_line)]
    key, value = override.get_key_element(), override.value()
    if isinstance(value, IntervalSweep):
        return [f"{key}={value.start}", f"{key}={value.end}"]
    if isinstance(value, Glob):
        options = sorted({path.stem for folder in folders for path in (folder / override.key_or_group).glob("*.yaml")})
        texts = [f"{key}={name}" for name in value.filter(options)]
    else:
        texts = [f"{key}={choice}" for choice in override.sweep_string_iterator()]
    if not texts:
        there = f" Choose from conf/{key}: {', '.join(options)}." if isinstance(value, Glob) and options else ""
        raise ValueError(f"{override.input_line} matches no choice, so the sweep has no jobs.{there}")
    for n, text in enumerate(texts):
        if text in texts[:n]:
            raise ValueError(
                f"{text} occurs twice: each choice must be different, because it names the directory of its job."
            )
    return texts
