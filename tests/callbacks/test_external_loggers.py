"""Where metrics go beside metrics.jsonl: a table, and services, whose packages need not be installed."""

import csv
import json
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gpt_lightning.jsonl_reader import read_rows
from running.commands.train import train
from running.config.compose import compose_config
from running.training.start_and_end_messages import hyperparameters
from tests.conftest import start
from tests.training_starts import killed

Config = Callable[..., dict[str, Any]]
OF_OTHERS = pytest.mark.filterwarnings("ignore")  # of packages that this one does not install
STEPS = [2, 4, 6, 8, 10, 12]


def killed_twice(tiny_overrides: list[str], *more: str) -> Path:
    """A run that was killed before its first checkpoint, and when it had logged a step behind one."""
    overrides = [*tiny_overrides, "name=run", *more]
    for micro_batch in (5, 13):
        killed(overrides, at=micro_batch)
    train(compose_config("train", overrides))
    return Path(compose_config("train", overrides)["run_dir"])


def table_of(run: Path) -> list[dict[str, float]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


def test_a_table_has_the_rows_of_the_metrics(tiny_overrides: list[str]) -> None:
    run = killed_twice(tiny_overrides, "logger=csv")
    rows = read_rows(run / "metrics.jsonl")
    assert [row["step"] for row in rows] == STEPS
    assert table_of(run) == rows


def test_a_killed_run_leaves_its_table(tiny_overrides: list[str], tmp_path: Path) -> None:
    killed([*tiny_overrides, "name=run", "logger=csv"], at=13)
    run = tmp_path / "runs" / "run"
    assert [row["step"] for row in table_of(run)] == [2, 4, 6]
    assert table_of(run) == read_rows(run / "metrics.jsonl")


def test_a_table_begun_late_has_all_rows(tiny_overrides: list[str], tiny_config: Config, tmp_path: Path) -> None:
    killed([*tiny_overrides, "name=run"], at=13)
    train(tiny_config("name=run", "logger=csv"))
    run = tmp_path / "runs" / "run"
    assert table_of(run) == read_rows(run / "metrics.jsonl")
    assert [row["step"] for row in table_of(run)] == STEPS


@OF_OTHERS
def test_mlflow_has_a_run_of_each_folder_and_each_step_once(tiny_overrides: list[str], tiny_config: Config) -> None:
    pytest.importorskip("mlflow")
    pytest.importorskip("alembic")
    run = killed_twice(tiny_overrides, "logger=mlflow")
    config = tiny_config("name=other", "logger=mlflow", "max_steps=4")
    config["run_dir"] = f"{config['runs_dir']}/other_sweep/optimizer.lr=0.001,seed=1"
    train(config)
    from mlflow import MlflowClient

    client = MlflowClient(config["logger"]["tracking_uri"])
    (experiment,) = client.search_experiments(filter_string="name = 'gpt-lightning'")
    runs = {found.info.run_name: found for found in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"run", "other_sweep/optimizer.lr=0.001,seed=1"}
    ours = runs["run"]
    assert ours.info.status == "FINISHED"
    assert ours.data.params == {
        key: str(value) for key, value in hyperparameters(tiny_config("name=run", "logger=mlflow")).items()
    }
    rows = read_rows(run / "metrics.jsonl")
    for key in {key for row in rows for key in row}:
        points = {point.step: point.value for point in client.get_metric_history(ours.info.run_id, key)}
        history = [point.step for point in client.get_metric_history(ours.info.run_id, key)]
        assert sorted(history) == [row["step"] for row in rows if key in row]
        if not key.startswith(("speed/", "memory/")):  # of steps that were made again
            assert points == {row["step"]: pytest.approx(row[key]) for row in rows if key in row}


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> str:
    """No request of W&B's; the setting that asks for it."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")
    return "logger.offline=true"


def records_of(path: Path) -> Iterator[bytes]:
    """Of a .wandb file, which is a log like LevelDB's: blocks of 32 KiB, records cut into pieces that each lie in one."""
    content, place, record = path.read_bytes(), 7, b""
    while place + 7 <= len(content):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        record += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or its last piece
            yield record
            record = b""


def kept_by_wandb(run: Path) -> dict[str, Any]:
    """Of a run's newest start: its id, name, settings and rows."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = (run / "wandb" / "latest-run").glob("*.wandb")
    kept: dict[str, Any] = {"settings": {}, "rows": []}
    for record in map(Record.FromString, records_of(path)):
        if record.HasField("run"):
            kept |= {"id": record.run.run_id, "name": record.run.display_name}
        for source in (record.run.config, record.config):
            told = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in source.update}
            kept["settings"] |= told
        if record.HasField("history"):
            items = record.history.item
            row = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in items}
            assert row.pop("_step") == row.pop("trainer/global_step") == row["step"]
            kept["rows"].append({key: value for key, value in row.items() if not key.startswith("_")})
    return kept


@OF_OTHERS
def test_wandb_has_a_run_of_each_folder_and_each_step_once(
    tiny_overrides: list[str], tiny_config: Config, offline: str
) -> None:
    """What it keeps offline is one folder for each start; each has all steps up to its end."""
    run = killed_twice(tiny_overrides, "logger=wandb", offline)
    folders = [path.name for path in run.glob("wandb/offline-run-*")]
    assert len(folders) == 3
    assert len({name.rpartition("-run-")[2] for name in folders}) == 1
    kept = kept_by_wandb(run)
    assert kept["name"] == "run"
    for row, ours in zip(kept["rows"], read_rows(run / "metrics.jsonl"), strict=True):
        assert row == pytest.approx(ours)
    settings = hyperparameters(tiny_config("name=run"))
    assert {key: kept["settings"].get(key) for key in settings} == settings
    config = tiny_config("name=run", "logger=wandb", offline, "max_steps=4")
    config["run_dir"] = f"{config['runs_dir']}/run_sweep/data.x=[a b]"
    train(config)
    other = kept_by_wandb(Path(config["run_dir"]))
    assert other["name"] == "run_sweep/data.x=[a b]"
    assert other["id"] != kept["id"]


@OF_OTHERS
def test_under_another_name_it_is_another_run(
    tiny_overrides: list[str], tiny_config: Config, offline: str, tmp_path: Path
) -> None:
    killed([*tiny_overrides, "name=run", "logger=wandb", offline], at=13)
    (tmp_path / "runs" / "run").rename(tmp_path / "runs" / "renamed")
    train(tiny_config("name=renamed", "logger=wandb", offline))
    before, after = sorted((tmp_path / "runs" / "renamed").glob("wandb/offline-run-*"))
    assert before.name.rpartition("-")[2] != after.name.rpartition("-")[2]
    assert [row["step"] for row in kept_by_wandb(tmp_path / "runs" / "renamed")["rows"]] == STEPS


@OF_OTHERS
def test_who_is_not_logged_in_is_told_so(
    tiny_overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    answer = start([*tiny_overrides, "name=run", "logger=wandb"])
    assert answer.returncode == 1
    assert re.fullmatch(r"error: logger=wandb cannot start: .*wandb.*log.*", answer.stderr.splitlines()[-1])
    assert not (tmp_path / "runs" / "run" / "environment.json").exists()


@OF_OTHERS
def test_a_service_that_fails_stops_no_run(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the next start sends what is missing."""
    pytest.importorskip("mlflow")
    pytest.importorskip("alembic")
    from mlflow import MlflowClient

    log_batch = MlflowClient.log_batch

    def broken(client: Any, run_id: str, metrics: Any = (), **kwargs: Any) -> None:
        if any(metric.step > 4 for metric in metrics):
            raise ConnectionError("nobody\nanswers.")
        log_batch(client, run_id, metrics=metrics, **kwargs)

    constant = ["curriculum=constant", "curriculum.mixes.base={stdlib:1}"]
    config = tiny_config("name=run", "logger=mlflow", *constant, "max_steps=8")
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", broken)
        train(config)
    log = next((tmp_path / "runs" / "run").glob("training_*.log")).read_text()
    assert log.count("logger=mlflow failed (nobody answers): this run continues without it") == 1
    train(config | {"max_steps": 12})
    record = json.loads((tmp_path / "runs" / "run" / "mlflow.json").read_text())
    client = MlflowClient(config["logger"]["tracking_uri"])
    assert sorted(point.step for point in client.get_metric_history(record["id"], "train/loss")) == STEPS


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["logger=wandb", "+logger.nothing=1"], r"needs a package: pip install -e|logger=wandb cannot start: .*nothing"),
        (["+logger._target_=lightning.pytorch.loggers.CometLogger"], "it must be one of CsvMetrics, WandbLogger, MLFlowLogger"),
        (["+logger._target_=os.system", "+logger.command=id"], "may not be called from a config"),
        (["logger=csv", "+logger.nothing=1"], r"CsvMetrics cannot be built: .*nothing"),
    ],
)  # fmt: skip
def test_a_logger_that_cannot_be_is_refused(
    tiny_config: Config, tmp_path: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        train(tiny_config("name=run", *overrides))
    assert not (tmp_path / "runs" / "run").exists()
