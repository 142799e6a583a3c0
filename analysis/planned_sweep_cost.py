"""The cost of a whole sweep, as a table of the jobs and the sum."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from analysis.comparison.run_settings import short_job_names
from analysis.number_formatting import format_bytes, format_count, format_duration
from gpt_lightning.console import Console

Plan = dict[str, Any]
_WIDTH = 100  # columns


def estimate_sweep_cost(plans: Mapping[str, Plan | ValueError]) -> dict[str, Any]:
    """Sums of tokens, flops, hours, price and disk_bytes over the feasible plans; None if one plan lacks the value.

    Args:
        plans: job -> content of its plan.json, or the error of plan.py.
    """
    priced = [plan for plan in plans.values() if isinstance(plan, dict)]
    keys = ("tokens", "flops", "hours", "price", "disk_bytes")
    return {key: None if any(p[key] is None for p in priced) else sum(p[key] for p in priced) for key in keys}


def print_sweep_cost(plans: Mapping[str, Plan | ValueError]) -> None:
    """Print a row for each feasible job and a row for the sum, in 100 columns.

    Args:
        plans: job -> content of its plan.json, or the error of plan.py.
    """
    priced = {job: plan for job, plan in plans.items() if isinstance(plan, dict)}
    if not priced:
        return
    table = Table("job", box=None, pad_edge=False)
    total, devices = estimate_sweep_cost(plans), {(plan["devices"], plan["device"]) for plan in priced.values()}
    ((n, device), *others) = devices
    time = "time" if others else f"on {n} {device}" if n > 1 else f"on {device}"
    heads = ["tokens", "FLOPs left", time, "memory", "disk", *(["price"] if total["price"] is not None else [])]
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for name, plan in zip(short_job_names(list(priced)), priced.values(), strict=True):
        table.add_row(Text(name, overflow="fold"), *_cells(plan)[: len(heads)])
    table.add_row(f"all {len(priced)}", *_cells(total)[: len(heads)], style="bold")
    Console(width=_WIDTH).print(table)


def sweep_problems(plans: Mapping[str, Plan | ValueError], *, free: int) -> list[str]:
    """Why the sweep is not feasible, one sentence per reason.

    Args:
        plans: job -> content of its plan.json, or the error of plan.py.
        free: bytes on the disk for checkpoints.
    """
    reasons: dict[str, list[str]] = {}
    for job, plan in plans.items():
        for reason in [str(plan)] if isinstance(plan, ValueError) else plan["problems"]:
            reasons.setdefault(reason, []).append(job)
    said = [
        f"{jobs[0]}{f' and {len(jobs) - 1} more' if jobs[1:] else ''}: {reason}" for reason, jobs in reasons.items()
    ]
    needed = estimate_sweep_cost(plans)["disk_bytes"]
    if needed > free:
        said.append(
            f"all checkpoints need {format_bytes(needed)}, but {format_bytes(free)} are free: keep fewer checkpoints, "
            "or use a larger disk."
        )
    return said


def _cells(plan: Mapping[str, Any]) -> list[str]:
    time = "" if plan["hours"] is None else format_duration(plan["hours"])
    memory = format_bytes(plan["peak_memory_bytes"]) if "peak_memory_bytes" in plan else ""
    price = "" if plan["price"] is None else f"{plan['price']:,.2f}"
    return [format_count(plan["tokens"]), f"{plan['flops']:.3g}", time, memory, format_bytes(plan["disk_bytes"]), price]
