"""Questions asked during training: what evaluate.py says of the same step, under a name that says what it is of."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpt_lightning.jsonl_reader import read_rows
from running.commands import evaluate as command
from running.commands.train import train
from running.config.compose import compose_config, read_choice
from tests.conftest import TINY, start
from tests.training_starts import killed

NAME = "zero_shot/piqa_harness_10_every_4"


@pytest.fixture
def records(tmp_path: Path) -> Path:
    path = tmp_path / "piqa.jsonl"
    rows = ({"goal": f"the {n}", "sol1": "of it", "sol2": f"self.{n}", "label": n % 2} for n in range(30))
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.fixture
def config(tiny_config: Callable[..., dict[str, Any]], records: Path) -> dict[str, Any]:
    config = tiny_config("name=run", "model.max_seq_len=64")
    watcher = {
        "_target_": "callbacks.ZeroShotEvaluation",
        "name": "piqa",
        "every": 4,
        "questions": 10,
        "path": str(records),
    }
    config["callbacks"]["piqa"] = watcher | {"task": read_choice("task", "piqa")}
    return config


def test_it_is_what_evaluate_says_of_that_step(
    config: dict[str, Any], records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(config)
    rows = {row["step"]: row for row in read_rows(tmp_path / "runs" / "run" / "metrics.jsonl")}
    assert [step for step, row in rows.items() if f"{NAME}/acc" in row] == [4, 8, 12]
    for step in (4, 12):
        checkpoint = tmp_path / "runs" / "run" / "checkpoints" / f"step_{step:08}.pt"
        overrides = [f"checkpoint={checkpoint}", "tasks=[piqa]", f"path={records}", "limit=10"]
        report = command.evaluate(compose_config("evaluate", overrides))
        for figure in report["results"]:
            assert rows[step][f"{NAME}/{figure['metric']}"] == pytest.approx(figure["value"], rel=1e-5)
    assert "piqa (harness): acc 0." in capsys.readouterr().out


def test_two_ranks_say_what_one_says_also_after_a_kill(records: Path, tiny_data: Path, tmp_path: Path) -> None:
    asked = f"{{_target_: callbacks.ZeroShotEvaluation, name: piqa, every: 4, questions: 10, path: '{records}'}}"
    same = [*TINY, f"data_dir={tiny_data}", "name=run", "model.max_seq_len=64"]
    same += ["+task@callbacks.piqa.task=piqa", f"+callbacks.piqa={asked}"]
    same += ["trainer.precision=32-true", "trainer.accelerator=cpu", "model.dropout=0"]
    train(compose_config("train", [*same, f"runs_dir={tmp_path / 'one'}"]))
    killed(
        [*same, f"runs_dir={tmp_path / 'ddp'}"], at=11
    )  # in step 6: after the first examination, and the checkpoint of its step
    shutil.copytree(tmp_path / "ddp", tmp_path / "fsdp")
    for trainer in ("ddp", "fsdp"):
        done = start([*same, f"runs_dir={tmp_path / trainer}", f"trainer={trainer}"])
        assert done.returncode == 0, done.stderr
    one, *others = (
        {row["step"]: row for row in read_rows(tmp_path / ranks / "run" / "metrics.jsonl") if f"{NAME}/acc" in row}
        for ranks in ("one", "ddp", "fsdp")
    )
    for two in others:
        assert list(one) == list(two) == [4, 8, 12]
        for step, row in one.items():
            for metric in ("acc", "acc_norm", "gold_bits_per_byte"):
                assert two[step][f"{NAME}/{metric}"] == pytest.approx(row[f"{NAME}/{metric}"], rel=1e-4)


def test_it_changes_nothing_of_the_training(config: dict[str, Any], tmp_path: Path) -> None:
    with_it = train(config)
    config["callbacks"].pop("piqa")
    without = train(config | {"name": "alone", "run_dir": str(tmp_path / "runs" / "alone")})
    assert with_it["train/loss"] == without["train/loss"]
    assert with_it["val/loss/mean"] == without["val/loss/mean"]


def test_what_cannot_be_asked_is_refused_before_anything_is_written(
    config: dict[str, Any], records: Path, tmp_path: Path
) -> None:
    records.write_text('{"other": 1}\n')
    with pytest.raises(ValueError, match=r"piqa\.jsonl, line 1: the field (sol1|goal) is missing"):
        train(config)
    assert not (tmp_path / "runs" / "run" / "config.yaml").exists()
    config["callbacks"]["piqa"]["questions"] = 0
    with pytest.raises(ValueError, match=r"callbacks\.piqa\.questions is 0"):
        train(config)
