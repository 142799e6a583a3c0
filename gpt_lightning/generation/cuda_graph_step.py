"""A step that a CUDA device repeats by one launch.

The graph belongs to one call of `generate` or `stream`. It reads the weights where they lie, so it sees those that a training
updates in place, and it never outlives a change of dtype, of device or of compilation.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache

import torch

_log = logging.getLogger(__name__)
_failed: list[torch.cuda.CUDAGraph] = []  # kept, because the allocator refers to a graph whose capture failed


class CudaGraphStep:
    """Runs a step; on CUDA from the second time on as a CUDA graph.

    The step takes and gives nothing, reads and writes the same tensors each time, and never waits for the device. Its first
    run, launched kernel by kernel, loads what a capture must find loaded. A capture that fails computes nothing: it is
    reported once, and every step of the process is launched kernel by kernel from then on.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._graph: torch.cuda.CUDAGraph | None = None
        self._pool: torch.cuda.MemPool | None = None  # of all its graphs, of which one at a time is replayed
        self._has_run = False

    def forget(self) -> None:
        """The next step is another one."""
        self._graph, self._has_run = None, False

    def __call__(self, step: Callable[[], None]) -> None:
        """Run the step, which must be the same until `forget`."""
        if self._device.type != "cuda" or _failed or torch.is_autocast_enabled("cuda"):  # autocast caches its casts
            step()
            return
        if self._has_run and self._graph is None:
            self._capture(step)
        if self._graph is not None:
            self._graph.replay()
        else:
            with _capture_stream(self._device):
                step()
            self._has_run = True

    def _capture(self, step: Callable[[], None]) -> None:
        graph = torch.cuda.CUDAGraph()
        with _capture_stream(self._device):
            self._pool = self._pool or torch.cuda.MemPool()
            try:
                # thread_local: other threads may allocate meanwhile, as the one that pins batches does
                graph.capture_begin(pool=self._pool.id, capture_error_mode="thread_local")  # type: ignore[arg-type]
                try:
                    step()
                finally:
                    graph.capture_end()
                self._graph = graph
            except RuntimeError as error:
                _failed.append(graph)
                with suppress(RuntimeError):  # the capture had ended
                    torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), self._pool.id)
                reason = str(error.__context__ or error).partition("\n")[0]
                _log.warning("generation launches its kernels one by one: a CUDA graph cannot be captured (%s)", reason)


@contextmanager
def _capture_stream(device: torch.device) -> Iterator[None]:
    """A stream of our own, as the default one cannot be captured; what surrounds it is waited for, and waits."""
    stream, surrounding = _stream(device), torch.cuda.current_stream(device)
    stream.wait_stream(surrounding)
    with torch.cuda.stream(stream):
        yield
    surrounding.wait_stream(stream)


@cache  # cuBLAS keeps a workspace for every stream
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
