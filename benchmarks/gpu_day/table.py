"""The rows of a day as the tables of docs/speed.md."""

from typing import Any

from benchmarks.gpu_day.speed_candidates import ROWS
from benchmarks.tables import Lines

HEAD = ["GPU: 124M, T 1,024, batch 32, bf16", "tokens/s", "MFU", "peak memory", "first step"]
NOT_MEASURED: Lines = [HEAD, ["all rows", "not measured", "", "", ""]]


def lines(rows: list[dict[str, Any]]) -> Lines:
    """Speed and memory; a row without a measurement says why."""
    return [HEAD, *(_line(row) for row in rows if row["stage"] == "speed" and row["row"] in ROWS)]


def _line(row: dict[str, Any]) -> list[str]:
    if "tokens_per_second" not in row:
        return [row["row"], row.get("skipped", row.get("error", "not measured")), "", "", ""]
    mfu = "not known" if row["mfu"] is None else f"{row['mfu']:.1%}"
    speed, memory = f"{row['tokens_per_second']:,.0f}", f"{row['mb']:,.0f} MB"
    return [row["row"], speed, mfu, memory, f"{row['first_step_seconds']:.0f} s"]


def machine(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The machine of the measurements."""
    return next((row["machine"] for row in rows if "machine" in row), None)
