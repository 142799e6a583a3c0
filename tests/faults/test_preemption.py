"""A run that is killed again and again, as a machine that costs little does it, and started again at once."""

import random
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.comparing import assert_equal, repeated_steps
from tests.faults.harness import GLOBAL_BATCH, SAVED_EVERY, SOAK, Run, Victim

# Exit code of a clean stop, and of one that came before the run had begun to listen
CODES = {signal.SIGKILL: {-9}, signal.SIGTERM: {143, -15}, signal.SIGINT: {130, -2, 1}}
ENOUGH = ["curriculum.max_epochs.pydoc=1000", "curriculum.max_epochs.docstrings=1000"]
Runs = Callable[..., Run]


def preempted(run: Run, *, step_seconds: float, between: tuple[float, float], most: int, seed: int) -> dict[str, int]:
    """Kill a run at random moments until it is done, or so often at most; how many kills of each kind hit it."""
    chance = random.Random(seed)
    kills = dict.fromkeys((chosen.name for chosen in CODES), 0)
    sleeping = ("slow", {"seconds": step_seconds})
    while sum(kills.values()) < most:
        chosen = chance.choice(list(CODES))
        stop = time.monotonic() + chance.uniform(*between)

        def kill(victims: list[Victim], chosen: signal.Signals = chosen, stop: float = stop) -> None:
            victims[0].wait_until(lambda: time.monotonic() > stop, every=0.05)
            victims[0].send(chosen)

        life = run.live(meanwhile=kill, faults=[sleeping])
        if life.codes == [0]:
            return kills
        assert life.codes[0] in CODES[chosen], life.output[-4000:]
        kills[chosen.name] += 1
        if chosen != signal.SIGKILL and life.codes[0] > 100:
            assert repeated_steps(run)[-1:] in ([], [0]), "a clean stop repeats nothing"
    run.finish()
    return kills


def holds(run: Run, straight: Run, record_property: Callable[[str, Any], None], **how: Any) -> None:
    began = time.monotonic()
    kills = preempted(run, **how)
    assert_equal(run, straight)
    repeated = repeated_steps(run)
    assert max(repeated) <= SAVED_EVERY + 1
    for name, count in kills.items():
        record_property(name, count)
    record_property("minutes", round((time.monotonic() - began) / 60))
    record_property("steps repeated", round(sum(repeated)))


def test_a_quarter_of_a_minute_of_preemption(
    new_run: Runs, straight: Runs, record_property: Callable[[str, Any], None]
) -> None:
    holds(new_run(), straight(), record_property, step_seconds=0.1, between=(1.5, 3.0), most=6, seed=1)


@pytest.mark.skipif(SOAK != "hour", reason="it takes an hour: make soak-hour")
def test_an_hour_of_preemption(new_run: Runs, straight: Runs, record_property: Callable[[str, Any], None]) -> None:
    """2,900 steps that sleep, so that nothing but the clock decides how many kills there are: about 90."""
    longer = ["max_steps=2900", "log_every=10", "val_every=100", "callbacks.samples.every=100", *ENOUGH]
    undisturbed = straight(*longer)
    assert len(undisturbed.lives[0].diet) == 2900 * GLOBAL_BATCH
    holds(new_run(*longer), undisturbed, record_property, step_seconds=1.1, between=(20, 60), most=150, seed=2)
