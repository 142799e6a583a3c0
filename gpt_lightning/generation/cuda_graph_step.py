"""Capture a decoding step as a CUDA graph and replay it.

The graph belongs to one call of `generate` or `stream_generated_text`. The graph reads the weights in place, so
updates by training take effect. It is not used after a change of dtype, device or compilation.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache

import torch

_log = logging.getLogger(__name__)
_failed: list[torch.cuda.CUDAGraph] = []  # kept because the allocator still refers to a graph whose capture failed


class CudaGraphStep:
    """Run a step; on CUDA, as a CUDA graph from the second run on.

    The step has no arguments and no result, reads and writes the same tensors each time, and never waits for the
    device. The first run launches kernel by kernel and so loads everything that a capture needs. If a capture fails, a
    warning is logged once, and all steps of the process are launched kernel by kernel from then on.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._graph: torch.cuda.CUDAGraph | None = None
        self._pool: torch.cuda.MemPool | None = None  # shared by all its graphs; only one of them is replayed at a time
        self._has_run = False

    def forget(self) -> None:
        """Discard the graph, because the next step differs."""
        self._graph, self._has_run = None, False

    def __call__(self, step: Callable[[], None]) -> None:
        """Run the step. It must be the same until `forget` is called."""
        if self._device.type != "cuda" or _failed or torch.is_autocast_enabled("cuda"):  # autocast caches casts
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
                # thread_local: other threads, such as the one that pins batches, may allocate during the capture
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
                _log.warning(
                    "CUDA graph capture failed (%s): generation launches kernels one by one, which is slower.", reason
                )


@contextmanager
def _capture_stream(device: torch.device) -> Iterator[None]:
    """Run on a separate stream, because the default stream cannot be captured; synchronise before and after."""
    stream, surrounding = _stream(device), torch.cuda.current_stream(device)
    stream.wait_stream(surrounding)
    with torch.cuda.stream(stream):
        yield
    surrounding.wait_stream(stream)


@cache  # cuBLAS allocates a workspace per stream
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
