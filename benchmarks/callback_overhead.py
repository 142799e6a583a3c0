"""The cost of callbacks: their time in a step of the quickstart's model, at their usual intervals.

Steps with validation, samples and checkpoints are not counted. What remains is the overhead that observing adds to
every step, including the log line of every tenth step.
"""

import tempfile
import time
from typing import Any

from gpt_lightning.data_wait_profiler import DataWaitProfiler
from running.commands.train import train
from running.config.compose import compose_config
from running.training import build

WARM_UP = 10  # steps that are not counted


class HookClock(DataWaitProfiler):
    """Sums up the time of all hooks of all callbacks, step by step."""

    steps: list[tuple[float, float]]
    """End time of each step, and seconds of all hooks until then."""

    def __init__(self) -> None:
        super().__init__()
        self._began: dict[str, float] = {}
        self._in_hooks = 0.0
        HookClock.steps = []

    def start(self, action_name: str) -> None:
        super().start(action_name)
        if action_name.startswith("[Callback]"):
            self._began[action_name] = time.perf_counter()

    def stop(self, action_name: str) -> None:
        super().stop(action_name)
        if action_name.startswith("[Callback]"):
            self._in_hooks += time.perf_counter() - self._began.pop(action_name)
        if action_name.endswith("StepLog.on_train_batch_end"):
            HookClock.steps.append((time.perf_counter(), self._in_hooks))


def measure(who: str, *, steps: int) -> dict[str, float]:
    """Mean milliseconds per step, in total and in callbacks.

    Args:
        who: ours.
        steps: number of counted steps, before the first validation.
    """
    build.DataWaitProfiler = HookClock  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as folder:
        config: dict[str, Any] = compose_config(
            "train",
            ["experiment=quickstart", "curriculum=constant", "curriculum.mixes.base={stdlib:1}", f"runs_dir={folder}"],
        )
        assert WARM_UP + steps < min(config["val_every"], config["callbacks"]["samples"]["every"])
        train(config | {"max_steps": WARM_UP + steps, "schedule": config["schedule"] | {"warmup_steps": 1}})
    (began, before), (ended, after) = HookClock.steps[WARM_UP - 1], HookClock.steps[WARM_UP + steps - 2]
    n = steps - 1  # the last step includes validation, samples and a checkpoint
    return {"ms": 1e3 * (ended - began) / n, "callbacks_ms": 1e3 * (after - before) / n}
