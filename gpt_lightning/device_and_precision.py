"""Choose the device and the number format of a training run."""

import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import torch

from gpt_lightning.accelerator_and_precision_names import Accelerator, Precision
from gpt_lightning.model.triton_check import why_triton_is_unavailable


def choose_device(wanted: str) -> str:
    """Choose "cpu" or "cuda"; `auto` means cuda if available.

    Args:
        wanted: The setting trainer.accelerator: auto, cpu or cuda.

    Raises:
        ValueError: The setting is unknown, or torch finds no CUDA device.
    """
    if wanted not in get_args(Accelerator):
        raise ValueError(f"trainer.accelerator is {wanted!r}: it must be auto, cpu or cuda.")
    is_there = torch.cuda.is_available()
    if wanted == "cuda" and not is_there:
        raise ValueError("trainer.accelerator is cuda, but torch finds no CUDA device: use auto or cpu.")
    return wanted if wanted != "auto" else "cuda" if is_there else "cpu"


def check_compiler(device: str) -> None:
    """Check that torch.compile has the compiler it needs: C++ on a CPU, Triton on CUDA.

    Raises:
        ValueError: The compiler is not available.
    """
    compiler = shlex.split(os.environ.get("CXX", "g++"))[0]  # the lookup that torch uses
    if device == "cpu" and shutil.which(compiler) is None:
        raise ValueError(
            f"trainer.compile is true, but the C++ compiler {compiler} is not installed: install it, or set "
            "trainer.compile=false."
        )
    if device == "cuda" and (obstacle := why_triton_is_unavailable(device)):
        raise ValueError(
            f"trainer.compile=true needs Triton on CUDA, and {obstacle}. To train without, set trainer.compile=false."
        )


def choose_precision(wanted: str, *, device: str) -> tuple[str, str]:
    """Choose Lightning's precision. `auto` decides by the capability of the device; other values are used as given.

    `torch.cuda.is_bf16_supported()` is not used: it returns True on a T4, which only emulates bf16.

    Args:
        wanted: The setting trainer.precision.
        device: "cpu" or "cuda".

    Returns:
        (precision, reason for the choice)

    Raises:
        ValueError: The precision is unknown.
    """
    if wanted not in (known := get_args(Precision)):
        raise ValueError(f"trainer.precision is {wanted!r}: it must be one of {', '.join(known)}.")
    if wanted != "auto":
        return wanted, "as configured"
    if device != "cuda":
        capabilities = torch.cpu.get_capabilities()
        if capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"):
            return "bf16-mixed", "this CPU multiplies bf16 faster than fp32"
        return "32-true", "this CPU has no bf16 arithmetic known to be faster"
    major, minor = torch.cuda.get_device_capability()
    if major >= 8:
        return "bf16-mixed", f"compute capability {major}.{minor} has bf16"
    return "16-mixed", f"compute capability {major}.{minor} has no bf16: fp16 with a gradient scaler"


def precision_dtype(precision: str) -> torch.dtype:
    """Return the dtype in which matrices are multiplied under one of Lightning's precisions."""
    return {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}[precision.split("-")[0]]


@contextmanager
def deterministic_algorithms(wanted: bool) -> Iterator[None]:
    """Context manager: if `wanted`, torch uses only kernels that give the same bits every time.

    Enter it before the first CUDA matrix product of the process, because cuBLAS reads its workspace setting at that
    point.
    """
    if not wanted:
        yield
        return
    import torch._inductor.config as inductor  # imported here because it takes a second

    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    chooses = inductor.deterministic
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark, workspace = torch.backends.cudnn.benchmark, os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    try:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # we never read any
        inductor.deterministic = True  # otherwise inductor chooses among kernels by measured time
        yield
    finally:
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        inductor.deterministic = chooses
        torch.backends.cudnn.benchmark = benchmark
        if workspace is None:
            del os.environ["CUBLAS_WORKSPACE_CONFIG"]
        else:
            os.environ["CUBLAS_WORKSPACE_CONFIG"] = workspace


def arithmetic_settings() -> dict[str, str | int | None]:
    """Return what affects the last bits of a sum, except package versions: CPU, threads, GPUs, CUDA, cuDNN."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    said: dict[str, str | int | None] = {
        "cpu": next((line.partition(": ")[2] for line in lines if line.startswith("model name")), None),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        capability = torch.cuda.get_device_capability()
        said |= {"gpus": ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))}
        said |= {"compute_capability": f"{capability[0]}.{capability[1]}"}
        said |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return said
