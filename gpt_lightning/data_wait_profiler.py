"""Measure how long training waits for its data."""

import time

from lightning.pytorch.profilers import Profiler


class DataWaitProfiler(Profiler):
    """Time the training loop's requests for the next micro-batch; all other profiler actions are ignored."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        """Total waiting time of this process, in seconds."""
        self._since = 0.0

    def start(self, action_name: str) -> None:
        if action_name.endswith("train_dataloader_next"):
            self._since = time.perf_counter()

    def stop(self, action_name: str) -> None:
        if action_name.endswith("train_dataloader_next"):
            self.seconds += time.perf_counter() - self._since
