"""What a sweep knows of its jobs: <sweep_dir>/.jobs/<number>.json, which a job writes wherever a launcher has brought it.

The run directories say the rest: how far a run is, and what it reached.
"""

import json
import math
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis.callbacks_that_change_results import may_change_weights
from gpt_lightning.durable_files import write_durably
from gpt_lightning.jsonl import last_row
from running.config.changed_settings import averaging_in, changed_settings
from running.config.compose import read_config

PRUNED = "pruned.json"
"""In the directory of a run that `callbacks.MedianPruning` has ended."""
ENDED_EARLY = "ended_early.json"
"""In the directory of a run that another callback has ended before its last step."""
RESUMABLE_EXIT_CODES = (74, 75, 130, 143)
"""Exit codes after which the same command goes on: a full disk, a time that is over, signals."""
_NOT_FINITE = 65  # the exit code of a run whose loss is no number
_DECIDES_NOTHING = (
    "data_dir",
    "data.",
    "trainer.",
    "hardware.",
    "micro_batch",
    "max_hours",
    "logger",
    "log_every",
    "val_every",
)
_MOST_NAMED = 3  # settings in a reason
_PLACES = ("name", "runs_dir", "run_dir", "sweep_dir", "jobs_at_once", "resume", "callbacks.")


class SweepState:
    """The jobs of one start of a sweep.

    Args:
        sweep_dir: where its runs lie.
    """

    def __init__(self, sweep_dir: Path) -> None:
        self.sweep_dir = sweep_dir
        self.folder = sweep_dir / ".jobs"

    def clear(self, *, n_jobs: int | None = None) -> None:
        """Forget an earlier start.

        Args:
            n_jobs: how many jobs this start has; None: a search decides it.
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
        """A job has begun (code None), or ended with an exit code.

        Args:
            other_run: why what its folder holds is not its own, see `describe_other_run`.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        row = {"number": number, "job": job, "code": code, "environment": dict(share or {}), "other_run": other_run}
        write_durably(self.folder / f"{number:04}.json", row)

    def jobs(self) -> list[dict[str, Any]]:
        """By number, those that have begun: number, job, code, environment."""
        return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(self.folder.glob("*.json"))]

    def ended(self, *, stopped: bool) -> list[dict[str, Any]]:
        """Those that were stopped before their end, or else those that failed."""
        return [row for row in self.jobs() if row["code"] and (row["code"] in RESUMABLE_EXIT_CODES) is stopped]

    def completed(self, *, before: int) -> list[str]:
        """The names of those with smaller numbers that ran to their last step, none that was ended before."""
        rows = [row for row in self.jobs() if row["number"] < before and row["code"] == 0]
        ended = (PRUNED, ENDED_EARLY)
        return [row["job"] for row in rows if not any((self.sweep_dir / row["job"] / end).exists() for end in ended)]


def is_finished(run: Path, config: Mapping[str, Any]) -> bool:
    """Whether a run with just these settings is done, pruned or ended early, so that nothing is left to start.

    A run that is done with other settings is not over: what becomes of it, train.py says.
    """
    try:
        settings = read_config(run / "config.yaml")
        saved = json.loads((run / "saved.json").read_text())["step"]
    except (OSError, ValueError, KeyError):
        return False
    if _differing(settings, config):
        return False
    if saved == config["max_steps"]:
        kept = any((run / "checkpoints").glob("step_*.pt"))
        return kept and _validated(run).get("step") == saved
    return (run / PRUNED).is_file() or why_ended_early(run, config, saved) is not None


def describe_other_run(run: Path, config: Mapping[str, Any]) -> str | None:
    """Why a folder holds another run than that of these settings; None: it holds that run, or none.

    Settings that decide no result, such as log_every, make no other run.
    """
    try:
        settings = read_config(run / "config.yaml")
    except (OSError, ValueError):
        return None
    pairs = {key: pair for key, pair in _differing(settings, config).items() if not key.startswith(_DECIDES_NOTHING)}
    if not pairs:
        return None
    named = [f"{key}={then}, not {now}" for key, (then, now) in pairs.items()]
    more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
    return f"its folder holds a run with other settings: {'; '.join(named[:_MOST_NAMED])}{more}"


def _differing(settings: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """(then, now) of the settings in which a run and a job differ, but for places and for callbacks that only watch."""
    deciders = (*averaging_in(settings), *averaging_in(config))
    return {
        key: (then, now)
        for key, (then, now) in changed_settings(settings, config).items()
        if not (key == "trainer.precision" and now == "auto")  # then it is what it was found to be
        and (not key.startswith(_PLACES) or key.startswith(deciders))
    }


def exit_code(returncode: int) -> int:
    """The exit code of a job, where a signal that asks it to stop came before it listened: 143, or 130 of Ctrl-C."""
    return 128 - returncode if -returncode in (signal.SIGTERM, signal.SIGINT) else returncode


def why_ended_early(run: Path, config: Mapping[str, Any], step: int) -> str | None:
    """Why a callback ended the run after this step, of which it has a checkpoint; None: none did, or they are others now."""
    try:
        ended = json.loads((run / ENDED_EARLY).read_bytes())
        return str(ended["why"]) if (ended["step"], ended["callbacks"]) == (step, may_end_early(config)) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def may_end_early(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of those callbacks that may end a run before its last step, or have a hand in when they do."""
    nodes = {name: (node, str(node.get("_target_"))) for name, node in config["callbacks"].items()}
    return {
        name: node
        for name, (node, target) in nodes.items()
        if target.endswith(".EarlyStopping") or may_change_weights(target)
    }


def objective(run: Path, code: int) -> float:
    """What a search minimises: the last mean validation loss of a run, infinite if its loss was no number.

    Raises:
        ValueError: the run failed, or was never validated.
    """
    if code == _NOT_FINITE:
        return math.inf
    if code:
        raise ValueError(f"{run} ended with exit code {code}")
    row = _validated(run)
    if "val/loss/mean" not in row:
        raise ValueError(f"{run} has no validation loss: callbacks.validation makes it.")
    return float(row["val/loss/mean"])


def _validated(run: Path) -> dict[str, Any]:
    """The last row of metrics.jsonl that has a validation loss; empty: there is none."""
    return last_row(run / "metrics.jsonl", having=b'"val/loss/mean"')
