"""The logger of a run in addition to metrics.jsonl and TensorBoard, and the run's identity at that service."""

import json
import re
from pathlib import Path
from uuid import uuid4

from callbacks import CsvMetrics, ExperimentTracker
from running.config import allowed_targets
from running.config.renamed_targets import target_of
from running.config.run_config import RunConfig

_LONGEST = 50  # characters of an id without its unique suffix


def build_external_logger(config: RunConfig) -> CsvMetrics | ExperimentTracker | None:
    """Build the logger that `logger` describes.

    A service gets a name and an id, both derived from the run's path below runs_dir. The id has a unique suffix and is
    stored in the run directory, in wandb.json or mlflow.json, so a run that is moved stays the same run at the service.
    If the folder's name or the logger's settings change, the service gets a new run. The same holds for a copy with
    another name, and for a branch.

    Args:
        config: config of the run.

    Returns:
        The logger; None if the config has none.

    Raises:
        ValueError: the logger is not allowed, does not accept its settings, or its package is not installed.
    """
    settings = config.logger
    kind = allowed_targets.LOGGING_SERVICES.get(target_of(settings).rpartition(".")[2])
    if kind is None:
        return allowed_targets.build_logger(settings)
    run = config.run_dir
    name, record = _name(run, config.runs_dir), run / f"{kind}.json"
    identity = {"name": name, "settings": dict(settings)}
    known = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    if any(known.get(key) != value for key, value in identity.items()):
        known = {}
    if kind == "wandb":
        cleaned = re.sub(r"[^\w.=-]+", "-", name, flags=re.ASCII)[-_LONGEST:]
        known = known or {"id": f"{cleaned}-{uuid4().hex[:8]}"}
        given = {"name": name, "id": known["id"], "save_dir": str(run), "resume": "allow"}
    else:
        given = {"run_name": name, "run_id": known.get("id")}  # MLflow chooses it at first
    logger = allowed_targets.build_logger(settings, **given)
    return ExperimentTracker(logger, kind=kind, record=record, identity=identity)


def _name(run: Path, runs: Path) -> str:
    """Path of the run below the folder of all runs."""
    run, runs = run.resolve(), runs.resolve()
    return run.relative_to(runs).as_posix() if run.is_relative_to(runs) else run.name
