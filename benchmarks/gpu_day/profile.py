"""The ten kernels that take most of the time in a compiled step of 124M."""

from functools import partial
from typing import Any

import torch
from torch.profiler import ProfilerActivity

from benchmarks.gpu_day.result_rows import Day
from benchmarks.gpu_day.speed_candidates import OURS, REHEARSED, ROWS, SHAPE
from benchmarks.gpu_day.speed_worker import Loop


def run(day: Day) -> None:
    torch.backends.cuda.enable_cudnn_sdp(not day.rehearse)
    day.measure("a compiled step", partial(top_kernels, day), seconds=10)


def top_kernels(day: Day) -> dict[str, Any]:
    """Milliseconds, launches and share of the ten kernels, and the totals."""
    loop = Loop(ROWS[OURS], REHEARSED if day.rehearse else SHAPE, device=day.device, nanogpt=None)
    loop.run(3)
    with torch.profiler.profile(activities=[ProfilerActivity.CUDA]) as profiler:
        loop.run(1)
    kernels = [event for event in profiler.key_averages() if event.self_device_time_total > 0]
    total = sum(kernel.self_device_time_total for kernel in kernels)
    if not total:
        return {"skipped": "the profiler saw no kernel"}
    kernels.sort(key=lambda kernel: -kernel.self_device_time_total)
    top = [
        {
            "kernel": kernel.key[:90],
            "ms": round(kernel.self_device_time_total / 1e3, 3),
            "launches": kernel.count,
            "share": round(kernel.self_device_time_total / total, 3),
        }
        for kernel in kernels[:10]
    ]
    return {"ms": total / 1e3, "launches": sum(kernel.count for kernel in kernels), "top": top}
