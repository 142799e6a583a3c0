"""Which folders are the runs that somebody means."""

import os
from collections.abc import Iterable
from glob import has_magic
from pathlib import Path
from typing import Any, NamedTuple

_OF_A_RUN = ("config.yaml", "environment.json", "metrics.jsonl", "checkpoints")


class FoundRuns(NamedTuple):
    """What patterns name."""

    runs: list[Path]  # folders with something of a run, and plain paths where there is nothing
    passed_over: int  # folders that a pattern names too, and that hold nothing of a run


def find_runs(patterns: Any) -> FoundRuns:
    """The runs that paths or patterns such as `runs/lr_sweep/*` name.

    A folder that is no run stands for the runs in it, as `runs/lr_sweep` does; a plain path is kept also where nothing is, as
    a run that is missing.

    Raises:
        ValueError: they are no paths, or name no run.
    """
    found: dict[Path, None] = {}
    passed_over = 0
    for pattern in patterns if isinstance(patterns, list) else [patterns]:
        if not isinstance(pattern, str) or not pattern:
            raise ValueError(
                f"runs has {pattern!r}: it must be a path, a pattern like runs/lr_sweep/*, or a list of them."
            )
        literal = Path(pattern)
        if literal.exists() or not has_magic(pattern):
            inside = (
                []
                if is_run_directory(literal) or not literal.is_dir()
                else sorted(filter(is_run_directory, literal.iterdir()))
            )
            found |= dict.fromkeys(inside or [literal])
        else:
            places = sorted(Path(literal.anchor or ".").glob(str(literal.relative_to(literal.anchor))))
            folders = [path for path in places if path.is_dir() and path.name[0] != "."]  # as a shell does
            found |= dict.fromkeys(path for path in folders if is_run_directory(path))
            passed_over += sum(not is_run_directory(path) for path in folders)
    if not any(is_run_directory(path) for path in found):
        named = patterns if isinstance(patterns, str) else ", ".join(map(str, patterns))
        raise ValueError(
            f"runs={named} names no run: it takes run directories, a folder that holds some, or a pattern of them, and a run "
            f"has one of {', '.join(_OF_A_RUN)}."
        )
    return FoundRuns(list(found), passed_over)


def is_run_directory(path: Path) -> bool:
    """Whether a folder holds anything of a run."""
    return path.is_dir() and any((path / name).exists() for name in _OF_A_RUN)


def common_folder(paths: Iterable[Path]) -> Path:
    """The folder below which all runs lie."""
    return Path(os.path.commonpath([path.absolute().parent for path in paths]))
