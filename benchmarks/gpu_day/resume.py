"""Does a run that is stopped and resumed equal an uninterrupted one, and does a repeat?

Compared tensor by tensor, step by step.

Each start of a run has its own process, like a user's. With `trainer.deterministic=true` the results must be
bit-identical; with the default settings the comparison is only recorded.
"""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gpu_day.json_subprocess import Child
from benchmarks.gpu_day.result_rows import Day
from benchmarks.gpu_day.small_run_config import REHEARSED, SMALL, Fingerprints, fingerprints_of

STEPS = 20
MODERN = [*("model.norm=rmsnorm", "model.position=rope", "model.feed_forward=relu2", "model.bias=false")]
MODERN += ["model.n_kv_heads=2", "model.qk_norm=true", "model.attend_across_documents=false"]
DETERMINISTIC = "trainer.deterministic=true"
MODES = {
    "default, eager": ["model.dropout=0.1"],
    "default, compiled": ["model.dropout=0.1", "trainer.compile=true"],
    "deterministic, eager": ["model.dropout=0.1", DETERMINISTIC],
    "deterministic, compiled": ["model.dropout=0.1", DETERMINISTIC, "trainer.compile=true"],
    "deterministic, documents apart, compiled": [*MODERN, "model.dropout=0", DETERMINISTIC, "trainer.compile=true"],
}
PARTS: dict[str, list[int | None]] = {"straight": [None], "again": [None], "stopped": [STEPS // 2, None]}
REHEARSED_MODES = ("default, eager", "deterministic, documents apart, compiled")


def run(day: Day) -> None:
    modes = {mode: MODES[mode] for mode in (REHEARSED_MODES if day.rehearse else MODES)}
    at_once = max(2, (os.cpu_count() or 1) // 2)
    with ThreadPoolExecutor(at_once) as pool:
        trained = {
            (mode, part): pool.submit(_train, day, f"{mode}, {part}", overrides, stops)
            for mode, overrides in modes.items()
            for part, stops in PARTS.items()
        }
        for mode in modes:
            straight, again, stopped = (trained[mode, part] for part in ("straight", "again", "stopped"))
            for row, other in ((f"{mode}: the same command twice", again), (f"{mode}: 20 = 10 + 10", stopped)):
                note = day.check if must_be_equal(mode) else day.measure
                note(row, partial(_judged, mode, straight, other))


def must_be_equal(mode: str) -> bool:
    return mode.startswith("deterministic")


def _judged(mode: str, straight: "Future[Fingerprints]", other: "Future[Fingerprints]") -> dict[str, Any]:
    return judged(mode, straight.result(), other.result())


def judged(mode: str, straight: Fingerprints, other: Fingerprints) -> dict[str, Any]:
    """The first difference between two runs; in deterministic mode, a check that there is none."""
    difference = first_difference(straight, other)
    passed = {"passed": difference is None} if must_be_equal(mode) else {}
    return {**passed, "steps": max(straight, default=0), "first_difference": difference}


def first_difference(straight: Fingerprints, other: Fingerprints) -> str | None:
    """The first step and tensor that differ; None if there is none."""
    if not straight or straight.keys() != other.keys():
        return f"{len(straight)} steps against {len(other)}"
    for step, tensors in sorted(straight.items()):
        differ = [name for name, number in tensors.items() if other[step].get(name) != number]
        if differ:
            return f"step {step}: {differ[0]}, {len(differ)} of {len(tensors)} tensors"
    return None


def _train(day: Day, name: str, overrides: list[str], stops: list[int | None]) -> Fingerprints:
    """Start a run once per entry of `stops`, each time in its own process."""
    name = name.replace(", ", "_").replace(" ", "_")
    settings = [*SMALL, *(REHEARSED if day.rehearse else []), *overrides, f"max_steps={STEPS}", f"name={name}"]
    settings += [f"data_dir={day.folder}/data", f"runs_dir={day.folder}/resume", f"trainer.accelerator={day.device}"]
    for number, stop in enumerate(stops):
        child = Child(
            "training_worker",
            {"overrides": settings, "probe": {"kind": "TensorLog", "stop_after": stop}, "rehearse": day.rehearse},
            log=Path(day.folder) / f"{name}_{number}.log",
        )
        try:
            child.answer(until=day.until - 3)
        finally:
            child.end()
    return fingerprints_of(Path(day.folder) / "resume" / name)
