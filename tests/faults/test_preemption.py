"""A run that is killed again and again, as a machine that costs little does it, and started again at once."""

import random
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.bit_equality import assert_equal, micro_batches_lost
from tests.faults.disturbed_runs import ACCUMULATION, GLOBAL_BATCH, SAVED_EVERY, SOAK, Run, soak_only
from tests.faults.training_processes import Victim

CODES = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 143, signal.SIGINT: 130}
Runs = Callable[..., Run]
Record = Callable[[str, Any], None]


def preempted(
    run: Run, *, steps: int, step_seconds: float, between: tuple[float, float], most: int, seed: int
) -> dict[signal.Signals, int]:
    """Kill a run at random moments until it is done, or so often at most; how many kills of each kind hit it.

    Args:
        run: not yet begun.
        steps: how long it is.
        step_seconds: how long each step lasts at least.
        between: the shortest and the longest time until a kill, in seconds; but none comes before a life has begun to train.
        most: kills.
        seed: of the moments.
    """
    chance = random.Random(seed)
    kills = dict.fromkeys(CODES, 0)
    while sum(kills.values()) < most:
        chosen, seconds = chance.choice(list(CODES)), chance.uniform(*between)

        def kill(victims: list[Victim], chosen: signal.Signals = chosen, seconds: float = seconds) -> None:
            lives, stop = len(run.lives), time.monotonic() + seconds
            victims[0].wait_until(lambda: len([*run.path.glob("diet/*")]) > lives, every=0.05)
            victims[0].wait_until(lambda: time.monotonic() > stop, every=0.05)
            victims[0].send(chosen)

        life = run.live(meanwhile=kill, faults=[("slow", {"seconds": step_seconds})])
        if life.saved == steps:  # whether or not the signal still found it at its last sentence
            return kills
        assert life.codes == [CODES[chosen]], life.output[-4000:]
        assert 0 <= micro_batches_lost(life) <= ((SAVED_EVERY + 1) * ACCUMULATION if chosen == signal.SIGKILL else 1)
        kills[chosen] += 1
    run.finish()
    return kills


def holds(run: Run, straight: Run, record_property: Record, **how: Any) -> None:
    """Preempt a run; it must end as the undisturbed one did."""
    began = time.monotonic()
    kills = preempted(run, steps=straight.lives[0].saved, **how)
    assert_equal(run, straight)
    record_property("stops and kills", sum(kills.values()))
    for chosen, count in kills.items():
        record_property(chosen.name, count)
    record_property("minutes", round((time.monotonic() - began) / 60))
    record_property("micro-batches repeated", sum(map(micro_batches_lost, run.lives[:-1])))


@soak_only
def test_some_seconds_of_preemption(new_run: Runs, straight: Runs, record_property: Record) -> None:
    holds(new_run(), straight(), record_property, step_seconds=0.1, between=(1.0, 3.0), most=5, seed=1)


@pytest.mark.skipif(SOAK != "hour", reason="it takes an hour: make soak-hour")
def test_an_hour_of_preemption(new_run: Runs, straight: Runs, record_property: Record) -> None:
    """Its 2,900 steps sleep, so that the clock and not the machine decides how many kills there are: about 80."""
    longer = ["max_steps=2900", "log_every=10", "val_every=100", "callbacks.samples.every=100"]
    longer += ["curriculum.max_epochs.pydoc=1000", "curriculum.max_epochs.docstrings=1000"]
    undisturbed = straight(*longer)
    assert len(undisturbed.lives[0].diet) == 2900 * GLOBAL_BATCH
    holds(new_run(*longer), undisturbed, record_property, step_seconds=1.1, between=(20, 60), most=150, seed=2)
