"""Where a run's metrics go beside metrics.jsonl and TensorBoard, and which run it is there."""

import json
import re
from pathlib import Path
from uuid import uuid4

from callbacks import CsvMetrics, ExperimentTracker
from running.config import allowed_targets
from running.config.run_config import RunConfig

_SERVICES = {"WandbLogger": "wandb", "MLFlowLogger": "mlflow"}
_LONGEST = 50  # characters of an id, without its unique part


def build_external_logger(config: RunConfig) -> CsvMetrics | ExperimentTracker | None:
    """What `logger` describes; None: nothing.

    A service is told a name and an id, both made of the run's place below runs_dir. The id has a unique part, and is kept in the
    run directory, in wandb.json or mlflow.json: so a run goes on as one wherever it is moved. Another name of the folder, or
    another place to send to, is another run there; so a copy under another name, or a branch, is one.

    Raises:
        ValueError: it may not be called, does not take its settings, or its package is not installed.
    """
    settings = config.logger
    kind = _SERVICES.get(str(settings.get("_target_")).rpartition(".")[2]) if settings else None
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
        given = {"run_name": name, "run_id": known.get("id")}  # which MLflow chooses
    logger = allowed_targets.build_logger(settings, **given)
    return ExperimentTracker(logger, kind=kind, record=record, identity=identity)


def _name(run: Path, runs: Path) -> str:
    """Its place below the folder of all runs."""
    run, runs = run.resolve(), runs.resolve()
    return run.relative_to(runs).as_posix() if run.is_relative_to(runs) else run.name
