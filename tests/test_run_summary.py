"""What a run says of itself, where it stands among others."""

import os
import shlex
from collections.abc import Callable
from typing import Any

import pytest

from running.config.compose import compose_config, typed
from running.config.quote_for_hydra import quote_text_settings
from running.config.run_config import RunConfig
from running.training.resume import ResumePoint
from running.training.start_and_end_messages import (
    busy_machine_remark,
    change_remarks,
    no_gpu_remark,
    start_remarks,
)

Config = Callable[..., dict[str, Any]]


def test_of_what_was_changed_only_what_makes_the_run_is_spelled_out() -> None:
    changed = {
        "optimizer.lr": (2e-3, 1e-3),
        "logger._target_": (None, "callbacks.CsvMetrics"),
        "callbacks.samples.every": (100, 50),
        "callbacks.samples.top_k": (50, None),
        "versions.torch": ("2.9", "2.10"),
        "log_every": (10, 20),
    }
    assert list(change_remarks(changed)) == [
        "changed from here on: optimizer.lr=0.001, was 0.002",
        "changed from here on: versions.torch=2.10, was 2.9",
        "also changed, without effect on what defines the run: logger, callbacks, log_every; see changes.jsonl",
    ]
    assert not list(change_remarks({}))


@pytest.mark.parametrize(
    ("steps", "said"), [(40, []), (60, [("a branch: its trunk was planned with 40 steps, this run has 60", "")])]
)
def test_a_branch_that_is_as_long_as_its_trunk_says_nothing_of_it(steps: int, said: list[tuple[str, str]]) -> None:
    branch = ResumePoint(None, 20, {"curricula": [{"steps": 40}]}, branching=True)
    assert list(start_remarks(branch, lost=0, max_steps=steps)) == said


@pytest.mark.parametrize(
    "path",
    [
        "runs/a",
        "runs/a b,c=1 [x]",
        "runs/a b",
        "[x]/y",
        "[x]=y",
        'it\'s "so"',
        "a\\",
        "$HOME/${x}",
        "a,b",
        "lr_sweep/lr=1,seed=2",
        "r/*",
    ],
)
def test_what_is_printed_can_be_typed(path: str) -> None:
    """Into a shell, whose words come to a program."""
    command = quote_text_settings(shlex.split(typed("run", path)))
    assert compose_config("report", command)["run"] == path


@pytest.mark.parametrize(("settings", "is_said"), [(["hardware=t4"], True), ([], False)])
def test_a_gpu_that_is_not_there_is_told(settings: list[str], is_said: bool) -> None:
    config = RunConfig.of(compose_config("train", ["experiment=quickstart", *settings]))
    said = list(no_gpu_remark(config, "cpu"))
    assert len(said) == is_said
    assert all("the settings of a T4 were chosen, but torch sees no GPU" in line for line in said)
    assert not list(no_gpu_remark(config, "cuda"))


@pytest.mark.parametrize(
    ("device", "load", "threads", "is_said"),
    [("cpu", 2.5, None, True), ("cpu", 1.5, None, False), ("cpu", 2.5, "1", False), ("cuda", 2.5, None, False)],
)
def test_a_busy_machine_is_told_of_one_thread(
    monkeypatch: pytest.MonkeyPatch, device: str, load: float, threads: str | None, is_said: bool
) -> None:
    """Told, and not given: the last bits of a run depend on the number of threads."""
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if threads:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
    said = list(busy_machine_remark(device))
    assert len(said) == is_said
    assert all("load 2.5 on 2 cores" in line and "OMP_NUM_THREADS=1 python train.py" in line for line in said)
