"""What evaluate.py found stands on the page that compares runs, and what cannot be read spoils nothing."""

import json
import shutil
from pathlib import Path
from typing import Any

from analysis.comparison import Comparison, read_runs
from analysis.comparison.evaluation_section import read_evaluated_metrics
from tests.analysis.test_comparison_page import cells, written


def judge(run: Path, checkpoint: str, *results: Any) -> None:
    path = run / "evaluation" / checkpoint / "evaluation.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"tokenizer": {"fingerprint": "0123456789"}, "results": results}))


def result(value: float | None, **more: Any) -> dict[str, Any]:
    of = {"task": "piqa", "protocol": "harness", "metric": "acc", "value": value, "low": 0.1, "high": 0.7, "n": 1838}
    return of | {"chance": 0.5, "data": {"sha256": "1"}} | more


def test_the_page_has_the_figures_of_the_newest_checkpoint_beside_each_other(sweep: Path, tmp_path: Path) -> None:
    a, b = (tmp_path / name for name in "ab")
    for run in (a, b):
        shutil.copytree(sweep / run.name, run, ignore=shutil.ignore_patterns("checkpoints", "tensorboard"))
    judge(a, "step_00000004", result(0.3), result(1.5, metric="bits", low=None, high=None))
    judge(
        b,
        "step_00000012",
        result(0.4),
        result(0.6, data={"sha256": "2"}),
        result(None, metric="ruined"),
        "torn",
        {"task": "x"},
    )
    judge(a, "step_99999999", result(0.31))
    judge(a, "step_100000000", result(0.5321))
    judge(a, "tried_again", result(0.9))
    for number, text in enumerate(
        ('{"results": [', '{"tokenizer": {"fingerprint": ""}, "results": [{"n": 1' + "0" * 400 + "}]}")
    ):
        (a / "evaluation" / f"step_20000000{number}").mkdir()
        (a / "evaluation" / f"step_20000000{number}" / "evaluation.json").write_text(text)
    heads, *rows = cells(written(list(read_runs([a, b])), tmp_path), "judged")
    assert heads[:4] == ["metric", "run", "value", "95%interval"]
    assert sorted(row[:7] for row in rows) == sorted(
        [
            ["piqa(harness),acc", "a", "0.5321", "0.1000to0.7000", "1,838", "0.5000", "step_100000000"],
            ["piqa(harness),acc", "b", "0.4000", "0.1000to0.7000", "1,838", "0.5000", "step_00000012"],
            ["piqa(harness),acc", "b", "0.6000", "0.1000to0.7000", "1,838", "0.5000", "step_00000012"],
            ["piqa(harness),bits", "a", "1.5000", "", "1,838", "0.5000", "step_00000004"],
            ["piqa(harness),ruined", "b", "", "0.1000to0.7000", "1,838", "0.5000", "step_00000012"],
        ]
    )
    same_data = [row[7] for row in rows if row[2] in ("0.5321", "0.4000")]
    assert len(set(same_data)) == 1
    assert {row[8] for row in rows} == {"01234567"}
    assert same_data[0] != next(row[7] for row in rows if row[2] == "0.6000")
    neighbours = [row[1] for row in rows if row[0] == "piqa(harness),acc" and row[7] == same_data[0]]
    assert neighbours == ["a", "b"]


def test_runs_that_nobody_judged_say_how(sweep: Path, tmp_path: Path) -> None:
    assert read_evaluated_metrics(sweep / "a") == ()
    page = written(list(Comparison(read_runs([sweep / "a"])).runs), tmp_path)
    assert "No run was evaluated yet: run python evaluate.py run=…." in page
