"""The table at the end of a sweep, and the one that prices it before."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from analysis.comparison import Comparison, verdict_sentence
from analysis.comparison.run_settings import short_job_names
from analysis.comparison.sweep_job_table import (
    WIDTH,
    SweepRow,
    compare_jobs,
    sweep_rows,
    sweep_table,
    write_sweep_table,
)
from analysis.planned_sweep_cost import estimate_sweep_cost, print_sweep_cost, sweep_problems
from running.commands.plan import plan
from running.config.compose import compose_config
from tests.conftest import TINY, start_command
from tests.run_files import untimed
from tests.synthetic_runs import finished

JOBS = [{"job": name, "code": code, "environment": {}} for name, code in [("a", 0), ("c", 0), ("d", 0), ("gone", 1)]]


def rows_of(folder: Path, jobs: list[dict[str, Any]]) -> list[SweepRow]:
    return sweep_rows(compare_jobs(folder, jobs), jobs)


def lines_of(rows: list[dict[str, Any]]) -> list[str]:
    console = Console(width=WIDTH, highlight=False)
    with console.capture() as captured:
        console.print(sweep_table(rows))
    return [line.rstrip() for line in captured.get().splitlines()]


def test_a_row_says_what_the_run_directory_says(sweep: Path, tmp_path: Path) -> None:
    for name in ("a", "c", "d"):
        shutil.copytree(sweep / name, tmp_path / name, ignore=shutil.ignore_patterns("tensorboard"))
    rows = rows_of(tmp_path, JOBS)
    assert [row["state"] for row in rows] == ["done", "done", "done", "failed"]
    for row in rows[:3]:
        last = untimed(tmp_path / row["job"] / "metrics.jsonl")[-1]
        assert row["val_loss"] == {s: last[f"val/loss/{s}"] for s in row["val_loss"]}
        assert next(iter(row["val_loss"])) == "mean"
        assert set(row["val_loss"]) == {"mean", "readmes", "stdlib", "pydoc", "docstrings"}
    assert not any(row["best"] for row in rows)  # of a run each nothing can be said
    assert json.loads(write_sweep_table(tmp_path, rows).read_text()) == rows
    assert len(lines_of(rows)) == 5


@pytest.mark.parametrize(("code", "state"), [(1, "refused"), (143, "stopped"), (-9, "failed")])
def test_the_losses_of_another_run_are_no_job_s(sweep: Path, code: int, state: str) -> None:
    jobs = [{"job": name, "code": code, "environment": {}, "other_run": "it holds seed=1"} for name in ("a", "c")]
    comparison = compare_jobs(sweep, jobs)
    assert verdict_sentence(comparison) == ""
    for row in sweep_rows(comparison, jobs):
        assert (row["state"], row["reason"], row["val_loss"], row["step"]) == (state, "it holds seed=1", {}, 0)


@pytest.mark.parametrize(
    ("losses", "starred"),
    [
        ({(1, 1): 3.0}, set()),
        ({(1, 1): 3.0, (1, 2): 3.1}, set()),
        ({(1, 1): 3.0, (2, 1): 4.0}, set()),
        ({(1, 1): 3.0, (1, 2): 3.01, (2, 1): 4.0, (2, 2): 4.02}, {(1, 1), (1, 2)}),
        (
            {(1, 1): 3.0, (1, 2): 3.1, (2, 1): 3.09, (2, 2): 3.02, (3, 1): 9.0, (3, 2): 9.1},
            {(1, 1), (1, 2), (2, 1), (2, 2)},
        ),
        ({(1, 1): 3.0, (2, 1): 4.0, (2, 2): 4.01, (2, 3): 4.02}, set()),
    ],
)
def test_the_star_marks_all_runs_of_the_best_settings_and_never_a_single_one(
    losses: dict[tuple[float, int], float], starred: set[tuple[float, int]]
) -> None:
    comparison = Comparison(
        [finished(f"{rate} {seed}", loss, seed=seed, **{"optimizer.lr": rate}) for (rate, seed), loss in losses.items()]
    )
    jobs = [{"job": run.name, "code": 0, "environment": {}} for run in comparison.runs]
    rows = sweep_rows(comparison, jobs)
    assert {key for key, row in zip(losses, rows, strict=True) if row["best"]} == starred


@pytest.mark.parametrize(
    ("code", "state"), [(None, "unfinished"), (65, "not finite"), (75, "stopped"), (143, "stopped"), (-9, "failed")]
)
def test_a_run_that_did_not_get_to_its_end_is_called_by_what_ended_it(
    sweep: Path, code: int | None, state: str
) -> None:
    (row,) = rows_of(sweep, [{"job": "unfinished", "code": code, "environment": {}}])
    assert (row["state"], row["step"], row["steps"], row["best"]) == (state, 6, 12, False)


@pytest.mark.parametrize(
    ("code", "kept", "state"),
    [(0, False, "no checkpoint"), (None, False, "no checkpoint"), (65, True, "not finite"), (74, True, "stopped")],
)
def test_a_run_whose_last_step_is_in_no_checkpoint_is_not_done(
    sweep: Path, tmp_path: Path, code: int | None, kept: bool, state: str
) -> None:
    shutil.copytree(sweep / "a", tmp_path / "a", ignore=shutil.ignore_patterns("tensorboard", *["*.pt"] * (not kept)))
    (row,) = rows_of(tmp_path, [{"job": "a", "code": code, "environment": {}}])
    assert row["state"] == state


def test_the_table_fits_and_no_job_is_cut_off() -> None:
    sources = [f"source_{n}" for n in range(12)]
    axes = "curriculum.keyframes.settled.weights"
    rows = [
        {
            "job": f"optimizer.lr=0.00{n}234567890123,{axes}.cosmopedia=0.{n},{axes}.python=0.{n},model.feed_forward=swiglu",
            "state": "done",
            "step": 100_000,
            "val_loss": dict.fromkeys(["mean", *sources], 3.0),
            "best": n == 2,
        }
        for n in range(1, 5)
    ]
    lines = lines_of(rows)
    assert max(map(len, lines)) <= WIDTH
    assert "mean" in lines[0]
    for n in range(1, 5):
        assert f"lr=0.00{n}235 cosmopedia=0.{n} python=0.{n}" in " ".join("".join(lines).split())
    assert sum("*" in line for line in lines) == 1


def test_jobs_have_short_names_that_differ() -> None:
    jobs = ["optimizer.lr=0.001,model.n_layers=2", "optimizer.lr=0.0012345678,model.n_layers=4"]
    assert short_job_names(jobs) == ["lr=0.001 n_layers=2", "lr=0.001235 n_layers=4"]
    assert short_job_names(["a.x=1,b.x=1", "a.x=2,b.x=1"]) == ["a.x=1 b.x=1", "a.x=2 b.x=1"]


def test_a_sweep_costs_what_its_jobs_cost(tiny_data: Path, tmp_path: Path) -> None:
    def config(*more: str) -> dict[str, Any]:
        return compose_config("plan", [*TINY, f"data_dir={tiny_data}", f"runs_dir={tmp_path}", "name=run", *more])

    plans = {f"max_steps={n}": plan(config(f"max_steps={n}"), silently=True) for n in (4, 12, 20)}
    sums = estimate_sweep_cost(plans)
    assert not any(tmp_path.iterdir())
    for key in ("tokens", "flops", "hours", "disk_bytes"):
        assert sums[key] == pytest.approx(sum(one[key] for one in plans.values()))
    assert sums["tokens"] == (4 + 12 + 20) * 8 * 32
    assert sweep_problems(plans, free=int(sums["disk_bytes"])) == []
    (disk,) = sweep_problems(plans, free=int(sums["disk_bytes"]) - 1)
    assert disk.startswith("all checkpoints need ")
    assert sums["price"] is None
    paid = {job: plan(config(job, "plan.price_per_hour=3"), silently=True) for job in plans}
    assert estimate_sweep_cost(paid)["price"] == pytest.approx(sums["hours"] * 3)
    on_cpu = plan(config("plan.device=cpu", "plan.price_per_hour=3"), silently=True)
    for key in ("hours", "price"):
        assert estimate_sweep_cost({**paid, "x": on_cpu})[key] is None
    assert sweep_problems({**plans, "x": ValueError("it cannot be"), "y": ValueError("it cannot be")}, free=10**15) == [
        "x and 1 more: it cannot be"
    ]


def test_hours_of_several_devices_stand_in_one_column(capsys: pytest.CaptureFixture[str]) -> None:
    plan: dict[str, Any] = {"tokens": 1e9, "flops": 1e18, "hours": 8.0, "price": None, "device": "T4", "devices": 1}
    plan |= {"peak_memory_bytes": 1e9, "disk_bytes": 1e9}
    others: list[dict[str, Any]] = [{}, {"devices": 4}, {"price": 4.0}]
    for other, head in zip(others, ("on T4", "time", "on T4"), strict=True):
        print_sweep_cost({"seed=1": plan, "seed=2": plan | other})
        first, _, last, _ = capsys.readouterr().out.splitlines()
        assert " ".join(first.split()[4:]) == f"{head} memory disk"
        assert last.endswith("1 GB")
    print_sweep_cost({f"seed={n}": plan | {"price": 4.5, "devices": 4} for n in (1, 2)})
    first, *jobs, total = (line.split() for line in capsys.readouterr().out.splitlines())
    assert first[4:] == ["on", "4", "T4", "memory", "disk", "price"]
    assert [job[-1] for job in jobs] == ["4.50", "4.50"]
    assert total[-5:] == ["16", "hours", "2", "GB", "9.00"]


def test_plan_prices_a_sweep_and_writes_no_run(tiny_data: Path, tmp_path: Path) -> None:
    settings = [*TINY, f"data_dir={tiny_data}", f"runs_dir={tmp_path}", "experiment=lr_sweep", "plan.device=T4"]
    answer = start_command("plan.py", [*settings, "optimizer.lr=0.001,0.016", "seed=1", "max_steps=12,20000"], "-m")
    assert answer.returncode == 1
    lines = answer.stdout.splitlines()
    assert lines[0].split() == ["job", "tokens", "FLOPs", "left", "on", "T4", "memory", "disk"]
    assert [line.split()[:3] for line in lines[1:-1]] == [
        [f"lr={rate}", "seed=1", f"max_steps={steps}"] for rate in (0.001, 0.016) for steps in (12, 20000)
    ]
    assert lines[-1].startswith("all 4 ")
    assert "error: the plan is not feasible:\n  optimizer.lr=0.001,seed=1,max_steps=20000 and 1 more: " in answer.stderr
    assert [path.name for path in (tmp_path / "lr_sweep").iterdir()] == [".jobs"]
    answer = start_command("plan.py", [*settings, "hydra/launcher=submitit_local"], "-m")
    assert answer.stderr == "error: plan.py plans a sweep in this process: leave out hydra/launcher=….\n"
