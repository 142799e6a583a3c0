"""What each of several jobs gets of one machine when they run at the same time: GPUs, or threads."""

import os
from collections.abc import Mapping
from typing import Any

_GPUS, _THREADS = "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"


def machine_shares(jobs_at_once: Any, *, devices: int, accelerator: str) -> list[dict[str, str]]:
    """Environment variables for each of the `jobs_at_once`; none for one job alone, which has the whole machine.

    The GPUs are those that this process sees, dealt out in equal shares; where jobs are more than GPUs, one is shared by several.
    The threads are OMP_NUM_THREADS, or as many as the process may use cores; on a CPU each of a job's ranks has a share of them.

    Args:
        jobs_at_once: how many.
        devices: processes of each job.
        accelerator: what they run on; cpu, cuda or auto.

    Raises:
        ValueError: `jobs_at_once` is no number of jobs, or jobs of several devices each do not fit beside each other.
    """
    n = jobs_at_once
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise ValueError(f"jobs_at_once is {n!r}: it must be a number of jobs, 1 or more.")
    if n == 1:
        return [{}]
    threads = int(os.environ.get(_THREADS) or len(os.sched_getaffinity(0)))
    gpus = [] if accelerator == "cpu" else _visible_gpus()
    ranks = n if gpus else n * devices
    shares = [{_THREADS: str(max(1, threads // ranks))} for _ in range(n)]
    if not gpus:
        return shares
    if devices * n > len(gpus) and devices > 1:
        raise ValueError(
            f"jobs_at_once={n} with trainer.devices={devices} needs {devices * n} GPUs, and there are {len(gpus)}: take fewer of "
            "either."
        )
    each = max(1, len(gpus) // n)
    for slot, share in enumerate(shares):
        begin = slot * each if len(gpus) >= n else slot % len(gpus)
        share[_GPUS] = ",".join(gpus[begin : begin + each])
    return shares


def describe_shares(share: Mapping[str, str]) -> str:
    """A share as it is said."""
    if _GPUS in share:
        return f"GPU {share[_GPUS]}"
    return f"{share[_THREADS]} thread{'s' * (share[_THREADS] != '1')}" if share else "the whole machine"


def _visible_gpus() -> list[str]:
    """As CUDA_VISIBLE_DEVICES names them."""
    if (named := os.environ.get(_GPUS)) is not None:
        return [gpu.strip() for gpu in named.split(",") if gpu.strip()]
    from torch.cuda import device_count  # seconds of import, which one job at a time need not wait for

    return [str(n) for n in range(device_count())]
