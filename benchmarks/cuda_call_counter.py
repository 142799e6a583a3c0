"""Count torch's calls of CUDA on a machine without a GPU.

A null GPU is a stand-in for libcudart, libcublas and libcuda that computes nothing. With it, the CUDA build of torch
dispatches, allocates and copies as on a real GPU. NULL_GPU names the folder with its two libraries, and the stand-in is
preloaded. Values are garbage, and times are meaningless.
"""

import ctypes
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import torch

COUNTED_STEPS = 3
_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_char_p)


class CudaCalls:
    """Context manager that counts the calls inside it. In nested contexts, calls count only in the innermost one."""

    _stack: ClassVar[list[Any]] = []  # of contexts, the innermost last

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._library, self._driver = _libraries()
        self._launched = 0

    def __enter__(self) -> "CudaCalls":
        if self._stack:
            self._stack[-1]._stop()
        self._stack.append(self)
        self._start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop()
        self._stack.pop()
        if self._stack:
            self._stack[-1]._start()

    @property
    def launches(self) -> int:
        """Number of kernels, matrix products and replayed graphs."""
        return self._total("KERNEL ") + self._total("GEMM ") + self.counts["driver launch"] + self.counts["graph"]

    @property
    def waits(self) -> int:
        """Number of waits of the host for a stream or the device."""
        return self._total("SYNC stream") + self._total("SYNC device")

    @property
    def event_waits(self) -> int:
        """Number of waits of the host for an event."""
        return self._total("SYNC event")

    @property
    def pageable(self) -> int:
        """Number of copies between the device and memory that is not pinned."""
        return sum(n for name, n in self.counts.items() if "PAGEABLE" in name)

    def kernels_named(self, part: str) -> int:
        """Launches of kernels whose mangled name contains `part`."""
        return sum(n for name, n in self.counts.items() if name.startswith("KERNEL ") and part in name)

    def _total(self, prefix: str) -> int:
        return sum(n for name, n in self.counts.items() if name.startswith(prefix))

    def _start(self) -> None:
        self._launched = self._driver.value
        self._library.nullgpu_on(_CALLBACK())  # a null callback, instead of one for each copy and wait

    def _stop(self) -> None:
        self._library.nullgpu_off()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "calls.tsv"
            self._library.nullgpu_dump(str(path).encode())
            for line in path.read_text().splitlines():
                n, _, name = line.split("\t", 2)
                self.counts[name] += int(n)
        self.counts["driver launch"] += self._driver.value - self._launched

    @classmethod
    def note_graph(cls) -> None:
        """Count the replay of a graph."""
        if cls._stack:
            cls._stack[-1].counts["graph"] += 1


class GraphStandIn:
    """Stand-in for torch.cuda.CUDAGraph, which cannot capture without a driver.

    The captured code runs once and is not counted. A replay runs nothing and counts as one launch. Operations that
    cannot be captured on a real GPU (waiting for the device, copying pageable memory) raise AssertionError.
    """

    def capture_begin(self, **options: Any) -> None:
        self._calls = CudaCalls()
        self._calls.__enter__()

    def capture_end(self) -> None:
        self._calls.__exit__()
        assert not self._calls.waits, "the host waits for the device inside a capture"
        assert not self._calls.pageable, "pageable memory is copied inside a capture"

    def replay(self) -> None:
        CudaCalls.note_graph()


class CountedSteps(L.Callback):
    """Counts the calls of a few steps in the middle of a run."""

    calls: CudaCalls

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx % trainer.accumulate_grad_batches == 0 and trainer.global_step == 5:
            CountedSteps.calls = CudaCalls()
            CountedSteps.calls.__enter__()
        if batch_idx % trainer.accumulate_grad_batches == 0 and trainer.global_step == 5 + COUNTED_STEPS:
            CountedSteps.calls.__exit__()


def require_null_gpu() -> None:
    """Raise SystemExit if there is no null GPU."""
    _libraries()


def _libraries() -> tuple[Any, ctypes.c_long]:
    folder = os.environ.get("NULL_GPU")
    if folder is None or not torch.cuda.is_available():
        raise SystemExit(
            "error: there is no null GPU here. It needs torch's CUDA build and a stand-in for CUDA's libraries, which "
            "is not part of this project: set NULL_GPU to its folder, and preload its libshim.so."
        )
    library = ctypes.CDLL(f"{folder}/libshim.so")
    driver = ctypes.CDLL(f"{folder}/libcuda.so.1")
    return library, ctypes.c_long.in_dll(driver, "nullgpu_cu_launches")
