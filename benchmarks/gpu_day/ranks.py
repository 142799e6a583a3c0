"""DDP and FSDP with one rank, started by torchrun: do they run with the same losses as a run without ranks?"""

import json
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gpu_day.json_subprocess import Child
from benchmarks.gpu_day.result_rows import Day
from benchmarks.gpu_day.small_run_config import REHEARSED, SMALL

_TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1")
STEPS = 10
TOLERANCE = 5e-3  # relative; bf16 rounds each product to 4e-3, and a loss is a mean of many


def run(day: Day) -> None:
    if day.rehearse:
        day.skip("NCCL", "a rehearsal has no NCCL: gloo takes its place")
    with ThreadPoolExecutor(1 if day.rehearse else 3) as pool:
        losses = {name: pool.submit(_train, day, name) for name in ("single", "ddp", "fsdp")}
        for name in ("ddp", "fsdp"):
            day.check(name, partial(_compared, losses["single"], losses[name]))


def _compared(single: "Future[list[float]]", other: "Future[list[float]]") -> dict[str, Any]:
    return compared(single.result(), other.result())


def compared(single: list[float], other: list[float]) -> dict[str, Any]:
    """The largest relative difference between the losses of two runs."""
    apart = max((abs(a - b) / abs(a) if a else 1.0) for a, b in zip(single, other, strict=True))
    return {"passed": len(single) == STEPS and apart <= TOLERANCE, "apart": apart, "last_loss": single[-1]}


def _train(day: Day, name: str) -> list[float]:
    """The loss of each step."""
    overrides = [*SMALL, *(REHEARSED if day.rehearse else []), f"max_steps={STEPS}", f"name={name}", "model.dropout=0"]
    overrides += [f"data_dir={day.folder}/data", f"runs_dir={day.folder}/ranks", f"trainer.accelerator={day.device}"]
    child = Child(
        "training_worker",
        {
            "overrides": overrides,
            "probe": None,
            "rehearse": day.rehearse,
            "strategy": None if name == "single" else name,
        },
        log=Path(day.folder) / f"ranks_{name}.log",
        launcher=() if name == "single" else _TORCHRUN,
    )
    try:
        child.answer(until=day.until - 3)
    finally:
        child.end()
    lines = (Path(day.folder) / "ranks" / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row["train/loss"] for row in map(json.loads, lines) if "train/loss" in row]
