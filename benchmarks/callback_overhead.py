"""What the callbacks cost: their time in a step of the quickstart's model, at their usual cadence.

Validation, samples and checkpoints are work of their own and fall into steps that are not counted; what is left is all that
watching adds to every step, the log line of each tenth included.
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
    """Adds up the seconds of every hook of every callback, step by step."""

    steps: list[tuple[float, float]]
    """When each step ended, and the seconds of all hooks until then."""

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
    """Mean milliseconds of a step, and of them those in callbacks.

    Args:
        who: ours.
        steps: that are counted, before the first validation.
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
    n = steps - 1  # the last one is validated, sampled and saved
    return {"ms": 1e3 * (ended - began) / n, "callbacks_ms": 1e3 * (after - before) / n}
