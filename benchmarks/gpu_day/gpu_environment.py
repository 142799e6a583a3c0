"""The machine of the measurements, peak rates of its GPU, and the corpus of the training runs."""

import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_day.result_rows import Day
from benchmarks.machine import describe

ROOT = Path(__file__).resolve().parent.parent.parent


def run(day: Day) -> None:
    day.measure("environment", environment)
    size = 256 if day.rehearse else 8192
    for dtype in (torch.bfloat16, torch.float16):
        name = f"matmul {size}, {str(dtype).removeprefix('torch.')}"
        day.measure(name, partial(matmul, size, dtype))
    day.measure("copy", partial(copy, 2**20 if day.rehearse else 2**32))
    day.measure("corpus", partial(prepare, day))


def environment() -> dict[str, Any]:
    """Versions, the device, and clocks and driver from nvidia-smi if it is installed."""
    device = torch.cuda.get_device_properties(0)
    values: dict[str, Any] = {
        "machine": describe("cuda"),
        "capability": f"{device.major}.{device.minor}",
        "memory_gb": device.total_memory / 1e9,
        "multiprocessors": device.multi_processor_count,
        "cuda": torch.version.cuda,
    }
    if shutil.which("nvidia-smi"):
        fields = "driver_version,clocks.sm,clocks.max.sm,clocks.max.mem,power.limit"
        command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
        said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
        values |= dict(zip(fields.split(","), said.stdout.strip().split(", "), strict=False))
    return values


def matmul(size: int, dtype: torch.dtype) -> dict[str, Any]:
    """TFLOP/s of a square product of random matrices."""
    a, b = (torch.randn(size, size, device="cuda", dtype=dtype) for _ in range(2))
    seconds = seconds_of(lambda: a @ b)
    return {"tflops": 2 * size**3 / seconds / 1e12}


def copy(n_bytes: int) -> dict[str, Any]:
    """GB/s read and written by a copy from device to device."""
    source = torch.zeros(n_bytes, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    seconds = seconds_of(lambda: target.copy_(source))
    return {"gb_per_s": 2 * n_bytes / seconds / 1e9}


def seconds_of(call: Any, *, times: int = 10) -> float:
    """Mean seconds of a call on the device, after three warm-up calls."""
    for _ in range(3):
        call()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(times):
        call()
    end.record()
    end.synchronize()
    return max(begin.elapsed_time(end), 1e-6) / 1e3 / times


def prepare(day: Day) -> dict[str, Any]:
    """Prepare the source code of the Python installation in GPT-2's tokens, without a network."""
    tokens = 100_000 if day.rehearse else 3_000_000
    options = ["source=stdlib", "tokenizer=gpt2", f"limit_tokens={tokens}", f"data_dir={day.folder}/data"]
    done = subprocess.run(
        [sys.executable, "prepare.py", *options], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError((done.stderr or done.stdout).strip().splitlines()[-1])
    return {"tokens": tokens}
