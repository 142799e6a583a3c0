"""The state of the jobs of a sweep: <sweep_dir>/.jobs/<number>.json, written on the machine that runs the job.

The progress and the results of a run are recorded in the run directory.
"""

import json
import math
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt_lightning.durable_files import write_durably
from gpt_lightning.early_end_file_names import ENDED_EARLY, PRUNED
from gpt_lightning.jsonl_reader import last_row
from gpt_lightning.setting_roles import Role, has_role
from running.config.callback_configs import callbacks_in
from running.config.changed_settings import averaging_in, changed_settings
from running.config.compose import read_config
from running.training.why_ended_early import why_ended_early

RESUMABLE_EXIT_CODES = (74, 75, 130, 143)
"""Exit codes after which the same command can resume: a full disk, a time limit, signals."""
_MACHINE = (Role.EXECUTION, Role.ROUNDING)  # settings that may differ between the machines of a sweep
_NOT_FINITE = 65  # exit code of a run whose loss is not finite
_MOST_NAMED = 3  # settings in a message


class SweepState:
    """The jobs of one start of a sweep.

    Args:
        sweep_dir: folder of the sweep's runs.
    """

    def __init__(self, sweep_dir: Path) -> None:
        self.sweep_dir = sweep_dir
        self.folder = sweep_dir / ".jobs"

    def clear(self, *, n_jobs: int | None = None) -> None:
        """Remove the state of an earlier start.

        Args:
            n_jobs: number of jobs of this start; None: a search decides it.
        """
        for path in [*self.folder.glob("*.json"), self.folder / "n_jobs"]:
            path.unlink(missing_ok=True)
        if n_jobs is not None:
            (self.folder / "n_jobs").write_text(f"{n_jobs}\n", encoding="utf-8")

    def write(
        self,
        number: int,
        job: str,
        *,
        code: int | None,
        share: Mapping[str, str] | None = None,
        other_run: str | None = None,
    ) -> None:
        """Record that a job has started or ended.

        Args:
            number: number of the job.
            job: name of the job.
            code: exit code; None: the job has started.
            share: environment variables of the job's share of the machine.
            other_run: why the job's folder holds another run, see `describe_other_run`.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        row = {"number": number, "job": job, "code": code, "environment": dict(share or {}), "other_run": other_run}
        write_durably(self.folder / f"{number:04}.json", row)

    def jobs(self) -> list[dict[str, Any]]:
        """The jobs that have started, sorted by number. The keys of each are number, job, code, environment, other_run."""
        return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(self.folder.glob("*.json"))]

    def ended(self, *, stopped: bool) -> list[dict[str, Any]]:
        """Jobs that were stopped before their last step, or jobs that failed.

        Args:
            stopped: True: the stopped jobs; False: the failed jobs.
        """
        return [row for row in self.jobs() if row["code"] and (row["code"] in RESUMABLE_EXIT_CODES) is stopped]

    def completed(self, *, before: int) -> list[str]:
        """Names of the jobs with smaller numbers that ran to their last step.

        Args:
            before: number of a job.
        """
        rows = [row for row in self.jobs() if row["number"] < before and row["code"] == 0]
        ended = (PRUNED, ENDED_EARLY)
        return [row["job"] for row in rows if not any((self.sweep_dir / row["job"] / end).exists() for end in ended)]


def is_finished(run: Path, config: Mapping[str, Any]) -> bool:
    """Whether a run with these settings is complete, pruned or ended early, so that nothing is left to do.

    Settings of the place, the start and the observation of a run may differ. A complete run with other settings is not
    finished; train.py then decides what to do.

    Args:
        run: the run's directory.
        config: settings of the job, nested.
    """
    try:
        recorded = read_config(run / "config.yaml")
        saved = json.loads((run / "saved.json").read_text())["step"]
    except (OSError, ValueError, KeyError):
        return False
    if _differing(recorded, config):
        return False
    if saved == recorded.get("max_steps"):
        kept = any((run / "checkpoints").glob("step_*.pt"))
        return kept and _validated(run).get("step") == saved
    return (run / PRUNED).is_file() or why_ended_early(run, callbacks_in(config), saved) is not None


def describe_other_run(run: Path, config: Mapping[str, Any]) -> str | None:
    """Why the run in a folder does not have these settings; None: it has these settings, or the folder holds no run.

    Settings that do not change results, such as log_every, are ignored.

    Args:
        run: the folder.
        config: settings of the job, nested.
    """
    try:
        settings = read_config(run / "config.yaml")
    except (OSError, ValueError):
        return None
    pairs = {key: pair for key, pair in _differing(settings, config).items() if not has_role(key, *_MACHINE)}
    if not pairs:
        return None
    named = [f"{key}={then}, not {now}" for key, (then, now) in pairs.items()]
    more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
    return f"its folder contains a run with other settings: {'; '.join(named[:_MOST_NAMED])}{more}"


def _differing(settings: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """(then, now) of the settings that differ, without those of the place, the start and the observation."""
    deciders = (*averaging_in(settings), *averaging_in(config))
    return {
        key: (then, now)
        for key, (then, now) in changed_settings(settings, config).items()
        if not (key == "trainer.precision" and now == "auto")  # auto stands for the recorded precision
        and (not has_role(key, Role.PLACE, Role.START, Role.OBSERVATION) or key.startswith(deciders))
    }


def exit_code(returncode: int) -> int:
    """The exit code of a job. For a job killed by SIGTERM or SIGINT before it could handle the signal: 143 or 130.

    Args:
        returncode: exit code of the process, as in `subprocess`.
    """
    return 128 - returncode if -returncode in (signal.SIGTERM, signal.SIGINT) else returncode


def objective(run: Path, code: int) -> float:
    """What a search minimises: the last mean validation loss of a run, or infinity if the loss was not finite.

    Args:
        run: the run's directory.
        code: exit code of the run.

    Raises:
        ValueError: the run failed, or was never validated.
    """
    if code == _NOT_FINITE:
        return math.inf
    if code:
        raise ValueError(f"{run} ended with exit code {code}")
    row = _validated(run)
    if "val/loss/mean" not in row:
        raise ValueError(f"{run} has no validation loss: it needs callbacks.validation.")
    return float(row["val/loss/mean"])


def _validated(run: Path) -> dict[str, Any]:
    """The last row of metrics.jsonl with a validation loss; empty if there is none."""
    return last_row(run / "metrics.jsonl", having=b'"val/loss/mean"')
