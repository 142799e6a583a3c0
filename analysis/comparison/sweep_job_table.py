"""A sweep as a table with one row per job: progress, loss, and which settings are best."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from analysis.comparison.comparison import Comparison
from analysis.comparison.metric_result import Significance
from analysis.comparison.read_runs import read_runs
from analysis.comparison.run import Run, RunState
from analysis.comparison.run_settings import short_job_names
from analysis.comparison.verdict_text import LOSS

WIDTH = 100
"""Maximum width of the table in columns."""
_LONG_NAME = 60  # columns: a longer name may wrap
_STOPPED = (74, 75, 130, 143)  # exit codes after which the same command resumes
_NOT_FINITE = 65
_REFUSED = 1
_LOST = (65, 66, 74)  # exit codes after which the last steps may be in no checkpoint

SweepRow = dict[str, Any]


def compare_jobs(folder: Path, jobs: Sequence[Mapping[str, Any]]) -> Comparison:
    """Compare the runs of a sweep's jobs, in the order of the jobs.

    Args:
        folder: the folder that contains the run directories.
        jobs: one mapping per job, in order, with the keys `job` (name of the job and of its run directory), `code`
            (exit code, None while there is none), `environment` (environment variables), and `other_run` (only if the
            directory holds a different run: why).
    """
    runs = read_runs([folder / job["job"] for job in jobs])
    return Comparison(
        [
            Run(run.path, run.name, RunState.MISSING, other) if (other := job.get("other_run")) else run
            for run, job in zip(runs, jobs, strict=True)
        ]
    )


def sweep_rows(comparison: Comparison, jobs: Sequence[Mapping[str, Any]]) -> list[SweepRow]:
    """The state and results of each job.

    Args:
        comparison: the result of `compare_jobs`.
        jobs: as in `compare_jobs`.

    Returns:
        For each job: job, state, reason (None: the state says it all), code, step, steps, val_loss (by source, and the
        mean), best (whether the job's settings are best or tied for best by the test; never for settings with a single
        run), environment.
    """
    starred = {
        run.name
        for candidate, cell in zip(comparison.candidates, comparison.column(LOSS), strict=True)
        for run in candidate.runs
        if cell.standing in (Significance.BEST, Significance.TIED) and len(candidate.runs) > 1
    }
    twins = {name for name, twin in comparison.twins.items() if twin in starred}
    return [
        {
            "job": job["job"],
            "state": "refused" if is_refused(job) else _state(run, job["code"]),
            "reason": job.get("other_run"),
            "code": job["code"],
            "step": run.last_step,
            "steps": run.steps,
            "val_loss": _losses(run),
            "best": run.name in starred | twins,
            "environment": job["environment"],
        }
        for job, run in zip(jobs, comparison.runs, strict=True)
    ]


def is_refused(job: Mapping[str, Any]) -> bool:
    """Whether a job was refused because its directory contains another run.

    Args:
        job: state of the job, see `SweepState.jobs`.
    """
    return job["code"] == _REFUSED and bool(job.get("other_run"))


def write_sweep_table(folder: Path, rows: Sequence[SweepRow]) -> Path:
    """Write the rows to sweep.json in the folder that contains the run directories, and return the path of sweep.json.

    Args:
        folder: folder of the sweep.
        rows: the rows from `sweep_rows`.
    """
    path = folder / "sweep.json"
    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return path


def sweep_table(rows: Sequence[SweepRow]) -> Table:
    """The table for a terminal of 100 columns: one row per job, mean loss, as many sources as fit, a star for the best.

    Args:
        rows: the rows from `sweep_rows`.
    """
    sources = list(dict.fromkeys(source for row in rows for source in row["val_loss"]))
    names = [
        name + " *" * row["best"] for name, row in zip(short_job_names([row["job"] for row in rows]), rows, strict=True)
    ]
    heads = ["state", "step", *sources]
    texts = [[row["state"], f"{row['step']:,}", *(_loss(row, source) for source in sources)] for row in rows]
    widths = [max(map(len, column)) + 2 for column in zip(heads, *texts, strict=True)]
    room = WIDTH - min(max(map(len, names)), _LONG_NAME)
    shown = next((n for n in range(len(heads), 3, -1) if sum(widths[:n]) <= room), 3)
    table = Table("job", box=None, pad_edge=False)
    for n, head in enumerate(heads[:shown]):
        table.add_column(head, justify="left" if n == 0 else "right", no_wrap=True)
    for row, name, cells in zip(rows, names, texts, strict=True):
        table.add_row(Text(name, overflow="fold"), *cells[:shown], style="bold" if row["best"] else "")
    return table


def _state(run: Run, code: int | None) -> str:
    refused = code and code not in (*_STOPPED, _NOT_FINITE)  # even if it is done with other settings
    unsaved = run.state is RunState.DONE and (code in _LOST or not any((run.path / "checkpoints").glob("step_*.pt")))
    if (
        run.state in (RunState.DONE, RunState.PRUNED, RunState.ENDED_EARLY, RunState.RUNNING)
        and not refused
        and not unsaved
    ):
        return str(run.state)
    if not code:
        return "no checkpoint" if unsaved else "unfinished"
    if code == _NOT_FINITE:
        return "not finite"
    return "stopped" if code in _STOPPED else "failed"


def _losses(run: Run) -> dict[str, float]:
    """The last validation of a run, wherever it ended, with the mean first."""
    steps, _ = run.metrics.series("val/loss/mean")
    last = run.metrics.at(int(steps[-1])) if len(steps) else {}
    losses = {key.removeprefix("val/loss/"): value for key, value in last.items() if key.startswith("val/loss/")}
    return {source: losses[source] for source in sorted(losses, key=lambda source: source != "mean")}


def _loss(row: SweepRow, source: str) -> str:
    return f"{row['val_loss'][source]:.4f}" if source in row["val_loss"] else ""
