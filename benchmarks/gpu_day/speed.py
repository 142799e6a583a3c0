"""Tokens per second, MFU and memory of GPT-2 124M, ours and the peers'.

Each contestant has its own process. First all of them build and compile, several at a time. Then they train in turns,
round after round, so that a GPU that slows down slows all of them down. The result is the median over the rounds.
"""

import math
import os
import statistics
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from analysis.hours_and_loss_from_sizes import peak_flops
from benchmarks.gpu_day.json_subprocess import Child, ChildBroke
from benchmarks.gpu_day.result_rows import Day
from benchmarks.gpu_day.speed_candidates import OURS, PEERS, REHEARSED, ROWS, SHAPE, TRANSFORMERS

ROUNDS, STEPS = 5, 8
_BYTES_OF_ONE = 32e9  # GPU memory of one contestant while it compiles
_JUDGED_ON = ("H200",)
_FOR_ROUNDS = 0.35  # fraction of the stage's time that is reserved for the rounds
MFU, AGAINST_PEER, MEMORY = 0.5, 1.15, 0.6


def run(day: Day) -> None:
    shape = REHEARSED if day.rehearse else SHAPE
    gpu = torch.cuda.get_device_properties(0)
    at_once = max(1, min(int(gpu.total_memory // _BYTES_OF_ONE), os.cpu_count() or 1))
    ready = _compiled(day, shape, at_once)
    seconds: dict[str, list[float]] = {name: [] for name in ready}
    for _ in range(ROUNDS if not day.rehearse else 1):
        for name, (child, _) in list(ready.items()):
            if day.seconds_left() < 3:
                break
            try:
                seconds[name].append(child.ask({"steps": STEPS}, until=day.until - 2)["seconds"] / STEPS)
            except (ChildBroke, TimeoutError) as error:
                day.add(name, {"error": str(error)})
                del ready[name]
    for child, _ in ready.values():
        child.end()
    rows = {}
    for name, (_, said) in ready.items():
        if not seconds[name]:
            day.skip(name, "no time is left for a round")
            continue
        rows[name] = measured(ROWS[name], said, seconds[name], shape=shape, device=gpu.name)
        day.add(name, rows[name])
    for row, values in verdicts(rows, judged=any(name in gpu.name for name in _JUDGED_ON)).items():
        day.add(row, values)


def _compiled(day: Day, shape: Mapping[str, int], at_once: int) -> dict[str, tuple[Child, dict[str, Any]]]:
    """The contestants that are ready, each with its process and its first answer."""
    until = day.until - _FOR_ROUNDS * day.seconds_left()
    names = []
    for name, row in ROWS.items():
        if row.get("who") == "nanogpt" and day.nanogpt is None:
            day.skip(name, "--nanogpt names no folder with its model.py")
        elif row.get("attention") == "sdpa_cudnn" and day.rehearse:
            day.skip(name, "a rehearsal has no cuDNN")
        else:
            names.append(name)
    with ThreadPoolExecutor(at_once) as pool:
        ready = zip(names, pool.map(lambda name: _start(day, name, shape, until), names), strict=True)
        return {name: started for name, started in ready if started}


def _start(day: Day, name: str, shape: Mapping[str, int], until: float) -> tuple[Child, dict[str, Any]] | None:
    """Start a contestant and wait until it is ready; None if it fails, and its row says why."""
    if time.time() > until:
        day.skip(name, "no time is left")
        return None
    given: dict[str, Any] = {"row": ROWS[name], "shape": dict(shape), "device": day.device}
    given |= {"rehearse": day.rehearse, "nanogpt": day.nanogpt}
    child = Child("speed_worker", given, log=Path(day.folder) / f"speed_{list(ROWS).index(name)}.log")
    try:
        return child, child.answer(until=until)
    except TimeoutError:
        day.skip(name, "it was not compiled in time")
    except ChildBroke as error:
        day.add(name, {"error": str(error)})
    child.end()
    return None


def measured(
    row: Mapping[str, Any], said: Mapping[str, Any], seconds: list[float], *, shape: Mapping[str, int], device: str
) -> dict[str, Any]:
    """The values of a row: the median over the rounds, and their spread."""
    speed = shape["batch"] * shape["max_seq_len"] / statistics.median(seconds)
    peak = peak_flops(device, "fp16" if row.get("precision") == "16-mixed" else "bf16")
    return {
        "tokens_per_second": speed,
        "mfu": speed * said["flops_per_token"] / peak if peak else None,
        "rounds_apart": max(seconds) / min(seconds) - 1,
        "rounds": len(seconds),
        **said,
    }


def verdicts(rows: Mapping[str, Mapping[str, Any]], *, judged: bool) -> dict[str, dict[str, Any]]:
    """Compare our rows with the limits. On other GPUs than those of the limits, the comparison is only recorded.

    Args:
        rows: measured rows by name.
        judged: whether a missed limit is a failed check.
    """
    both_eager = rows.get("ours"), rows.get("transformers")
    ours, peer_speeds = rows.get(OURS), [rows[name]["tokens_per_second"] for name in PEERS if name in rows]
    theirs = rows.get(TRANSFORMERS)
    mfu = ours["mfu"] if ours and ours["mfu"] is not None else math.nan
    speed = ours["tokens_per_second"] / max(peer_speeds) if ours and peer_speeds else math.nan
    memory, memory_eager = (
        one["mb"] / other["mb"] if one and other and other["mb"] else math.nan
        for one, other in ((ours, theirs), both_eager)
    )
    found = {
        "MFU": (mfu, mfu >= MFU, f"at least {MFU}"),
        "speed against the fastest peer": (speed, speed >= AGAINST_PEER, f"at least {AGAINST_PEER}"),
        "peak memory against transformers": (memory, memory <= MEMORY, f"at most {MEMORY}"),
    }
    verdicts: dict[str, dict[str, Any]] = {
        name: {"value": value, "limit": limit, **({"passed": bool(passed)} if judged else {})}
        for name, (value, passed, limit) in found.items()
    }
    return {**verdicts, "peak memory against transformers, neither compiled": {"value": memory_eager}}
