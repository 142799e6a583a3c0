"""Find the jobs of a sweep that have no run, from <sweep_dir>/.jobs/."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from analysis.comparison.find_runs import is_run_directory

_MOST_NAMED = 3  # jobs in a message


def missing_jobs(patterns: Any) -> Iterator[str]:
    """A line for each sweep with missing runs, among the sweeps that `runs` names as a whole (the folder, or folder/*).

    Args:
        patterns: as in `find_runs`.
    """
    for pattern in patterns if isinstance(patterns, list) else [patterns]:
        folder = Path(pattern).parent if Path(pattern).name == "*" else Path(pattern)
        rows = _jobs(folder)
        missing = [f"{row['job']} {why}" for row in rows if (why := _why_missing(folder, row))]
        n_jobs = max(_n_jobs(folder), len(rows))
        never_began = n_jobs - len(rows)
        if n_missing := len(missing) + never_began:
            said = missing[:_MOST_NAMED]
            if len(missing) > _MOST_NAMED:
                said.append(f"{len(missing) - _MOST_NAMED} more that started")
            if never_began:
                said.append(f"{never_began} never started")
            are = "is" if n_missing == 1 else "are"
            yield f"{n_missing} of {n_jobs} jobs {are} missing: {'; '.join(said)}"


def _why_missing(folder: Path, row: dict[str, Any]) -> str:
    """Why a job has no run of its own; empty if it has one."""
    if row["code"] and row.get("other_run"):
        return f"was refused, {row['other_run']}" if row["code"] == 1 else f"has no run, {row['other_run']}"
    if is_run_directory(folder / row["job"]):
        return ""
    return "has no run directory" if not row["code"] else f"ended with exit code {row['code']}"


def _jobs(folder: Path) -> list[dict[str, Any]]:
    rows = []
    for path in sorted((folder / ".jobs").glob("*.json")):
        try:
            row = json.loads(path.read_bytes())
            rows.append({"job": str(row["job"]), "code": row["code"], "other_run": row.get("other_run")})
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
    return rows


def _n_jobs(folder: Path) -> int:
    """Number of jobs of the last start of the sweep; 0 if unknown."""
    try:
        return int((folder / ".jobs" / "n_jobs").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0
