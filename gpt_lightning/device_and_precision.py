"""Which device a training runs on, and in which number format."""

import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from gpt_lightning.model.triton_check import why_triton_is_unavailable

PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed", "bf16-true")


def choose_device(wanted: str) -> str:
    """ "cpu" or "cuda"; `auto` takes cuda where there is one.

    Raises:
        ValueError: there is no such device, or not here.
    """
    if wanted not in ("auto", "cpu", "cuda"):
        raise ValueError(f"trainer.accelerator is {wanted!r}: it must be auto, cpu or cuda.")
    is_there = torch.cuda.is_available()
    if wanted == "cuda" and not is_there:
        raise ValueError("trainer.accelerator is cuda, and torch finds no CUDA device here: take auto or cpu.")
    return wanted if wanted != "auto" else "cuda" if is_there else "cpu"


def check_compiler(device: str) -> None:
    """torch.compile writes C++ for a CPU, and Triton kernels for CUDA.

    Raises:
        ValueError: there is no compiler for it.
    """
    compiler = shlex.split(os.environ.get("CXX", "g++"))[0]  # as torch looks for it
    if device == "cpu" and shutil.which(compiler) is None:
        raise ValueError(
            f"trainer.compile=true needs a C++ compiler on a CPU, and there is no {compiler}: install it, or train without."
        )
    if device == "cuda" and (obstacle := why_triton_is_unavailable(device)):
        raise ValueError(f"trainer.compile=true needs Triton on CUDA: {obstacle}, or train without.")


def choose_precision(wanted: str, *, device: str) -> tuple[str, str]:
    """(Lightning's precision, why). `auto` goes by the device's capability; anything else is taken as it is.

    `torch.cuda.is_bf16_supported()` is not asked: it says yes on a T4, which only emulates bf16.

    Raises:
        ValueError: there is no such precision.
    """
    if wanted not in PRECISIONS:
        raise ValueError(f"trainer.precision is {wanted!r}: it must be one of {', '.join(PRECISIONS)}.")
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
    """The number format that matrices are multiplied in under one of Lightning's precisions."""
    return {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}[precision.split("-")[0]]


@contextmanager
def deterministic_algorithms(wanted: bool) -> Iterator[None]:
    """Inside, if it is wanted, torch takes only kernels that give the same bits each time.

    cuBLAS reads its workspace from the environment when the process makes its first product on CUDA: enter before.
    """
    if not wanted:
        yield
        return
    import torch._inductor.config as inductor  # not at the top: it takes a second

    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    chooses = inductor.deterministic
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark, workspace = torch.backends.cudnn.benchmark, os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    try:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # nothing of ours reads any
        inductor.deterministic = True  # or it would choose among kernels by their time
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
    """What decides the last bits of a sum on this machine, besides the versions of packages."""
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
