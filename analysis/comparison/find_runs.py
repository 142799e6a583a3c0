"""Find the run directories that paths or patterns name."""

import os
from collections.abc import Iterable
from glob import has_magic
from pathlib import Path
from typing import Any, NamedTuple

_OF_A_RUN = ("config.yaml", "environment.json", "metrics.jsonl", "checkpoints")


class FoundRuns(NamedTuple):
    """What paths or patterns match."""

    runs: list[Path]  # run directories, and plain paths that do not exist
    passed_over: int  # number of matching folders that are not run directories


def find_runs(patterns: Any) -> FoundRuns:
    """Find the runs that paths or patterns such as `runs/lr_sweep/*` name.

    A folder that is not a run, such as `runs/lr_sweep`, stands for the runs in it. A plain path that does not exist is
    kept as a missing run.

    Args:
        patterns: a path or a pattern, or a list of paths and patterns.

    Raises:
        ValueError: a pattern is not a string, or no run is found.
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
            # hidden folders do not match, as in a shell
            folders = [path for path in places if path.is_dir() and path.name[0] != "."]
            found |= dict.fromkeys(path for path in folders if is_run_directory(path))
            passed_over += sum(not is_run_directory(path) for path in folders)
    if not any(is_run_directory(path) for path in found):
        named = patterns if isinstance(patterns, str) else ", ".join(map(str, patterns))
        raise ValueError(
            f"runs={named} matches no run: it must be run directories, a folder with runs, or a pattern. A run "
            f"directory contains one of {', '.join(_OF_A_RUN)}."
        )
    return FoundRuns(list(found), passed_over)


def is_run_directory(path: Path) -> bool:
    """Whether a folder contains any file of a run."""
    return path.is_dir() and any((path / name).exists() for name in _OF_A_RUN)


def common_folder(paths: Iterable[Path]) -> Path:
    """The deepest folder that contains all runs.

    Args:
        paths: paths of the runs.
    """
    return Path(os.path.commonpath([path.absolute().parent for path in paths]))
