"""Description of the machine, and measurement of memory and time."""

import json
import platform
import statistics
import subprocess
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch

PACKAGES = ("torch", "lightning", "transformers", "litgpt", "litdata", "mosaicml-streaming", "tiktoken", "numpy")


def describe(device: str) -> dict[str, Any]:
    """Versions, the commit of the working tree, and the name of the device.

    Args:
        device: cpu or cuda.
    """
    git = ["git", "-C", str(Path(__file__).parent)]
    commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=False)
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else _cpu(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "commit": commit.stdout.strip() + (" and changes" if changed.stdout.strip() else ""),
    }


def trained_on(runs: Sequence[Path]) -> dict[str, Any]:
    """Description of this machine, with the commits at which runs were trained."""
    environments = [json.loads((run / "environment.json").read_text()) for run in runs]
    commits = {env["git"]["revision"][:7] + (" and changes" if env["git"]["changed"] else "") for env in environments}
    return describe("cpu") | {"commit": ", ".join(sorted(commits))}


def memory_bandwidth() -> float:
    """Bytes per second at which this machine reads memory: the sum of a gigabyte, the fastest of several."""
    x = torch.ones(2**28)
    seconds = []
    for _ in range(7):
        begin = time.perf_counter()
        x.sum()
        seconds.append(time.perf_counter() - begin)
    return x.numel() * x.element_size() / min(seconds)


class AddedMemory:
    """Measures by how many megabytes the process grows at its peak, from now on."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak in Linux
        self._before = self._kilobytes("VmRSS")

    def mb(self) -> float:
        return (self._kilobytes("VmHWM") - self._before) * 1024 / 1e6

    @staticmethod
    def _kilobytes(field: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def median_seconds(call: Any, *, times: int) -> float:
    """Median duration of a call, after a warm-up call."""
    call()
    seconds = []
    for _ in range(times):
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def _cpu() -> str:
    name = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    return f"{name}, {psutil.cpu_count()} cores"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
