"""Share the GPUs or threads of one machine among jobs that run at the same time."""

import os
from collections.abc import Mapping
from typing import Any

_GPUS, _THREADS = "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"


def machine_shares(jobs_at_once: Any, *, devices: int, accelerator: str) -> list[dict[str, str]]:
    """Environment variables for each of `jobs_at_once` jobs; none for a single job, which has the whole machine.

    The GPUs visible to this process are divided equally. If there are more jobs than GPUs, several jobs share one. The
    number of threads is OMP_NUM_THREADS, or the number of cores that the process may use. On a CPU, the threads are
    divided among all ranks of all jobs.

    Args:
        jobs_at_once: number of jobs that run at the same time.
        devices: processes per job.
        accelerator: cpu, cuda or auto.

    Returns:
        One dict of variables per job.

    Raises:
        ValueError: `jobs_at_once` is not a number of jobs, or there are too few GPUs for jobs with several devices.
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
            f"jobs_at_once={n} with trainer.devices={devices} needs {devices * n} GPUs, but there are {len(gpus)}: "
            "lower one of them."
        )
    each = max(1, len(gpus) // n)
    for slot, share in enumerate(shares):
        begin = slot * each if len(gpus) >= n else slot % len(gpus)
        share[_GPUS] = ",".join(gpus[begin : begin + each])
    return shares


def describe_shares(share: Mapping[str, str]) -> str:
    """A share as text for messages.

    Args:
        share: environment variables of a job.
    """
    if _GPUS in share:
        return f"GPU {share[_GPUS]}"
    return f"{share[_THREADS]} thread{'s' * (share[_THREADS] != '1')}" if share else "the whole machine"


def _visible_gpus() -> list[str]:
    """GPUs as CUDA_VISIBLE_DEVICES names them."""
    if (named := os.environ.get(_GPUS)) is not None:
        return [gpu.strip() for gpu in named.split(",") if gpu.strip()]
    from torch.cuda import device_count  # slow to import

    return [str(n) for n in range(device_count())]
