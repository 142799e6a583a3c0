"""How long training waits for its data."""

import time

from lightning.pytorch.profilers import Profiler


class DataWaitProfiler(Profiler):
    """A clock that runs while the training loop asks for its next micro-batch: nothing else is looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        """In all, since the process began to train."""
        self._since = 0.0

    def start(self, action_name: str) -> None:
        if action_name.endswith("train_dataloader_next"):
            self._since = time.perf_counter()

    def stop(self, action_name: str) -> None:
        if action_name.endswith("train_dataloader_next"):
            self.seconds += time.perf_counter() - self._since
