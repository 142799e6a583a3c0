"""SIGTERM and its kin: one checkpoint at the end of the step, an exit code that says so, and nothing is done twice."""

import os
import random
import signal
import time
from collections.abc import Callable, Iterable
from typing import Any

import psutil
import pytest

from tests.faults.bit_equality import assert_equal, micro_batches_lost
from tests.faults.disturbed_runs import ACCUMULATION, MICRO_BATCHES, STEPS, Life, Run, newest, soak_only, some
from tests.faults.training_processes import Victim

Runs = Callable[..., Run]
SOON = 30.0  # seconds from the signal to the end


def stop_in(run: Run, micro_batch: int, *, name: str = "SIGTERM", code: int = 143, **how: Any) -> Life:
    """Signal the run in a micro-batch: it saves at the end of that step, and no step is lost."""
    life = run.live(faults=[("send", {"signal_name": name, "micro_batch": micro_batch})], timeout=SOON, **how)
    step = micro_batch // ACCUMULATION + 1
    assert life.codes == [code if step < STEPS else 0] * run.ranks, life.output[-4000:]
    assert life.saved == step
    assert micro_batches_lost(life) == int(step < STEPS), "the next step is announced, and nothing of it is trained"
    return life


@pytest.mark.parametrize("step", some(range(STEPS), fast=1))
def test_stopped_at_each_step(new_run: Runs, straight: Runs, step: int) -> None:
    run = new_run()
    stop_in(run, step * ACCUMULATION + random.Random(step).randrange(ACCUMULATION))
    if step + 1 < STEPS:
        run.finish()
    assert_equal(run, straight())


@soak_only
@pytest.mark.parametrize("seed", range(8))
def test_stopped_three_times(new_run: Runs, straight: Runs, seed: int) -> None:
    run = new_run()
    for micro_batch in sorted(random.Random(seed).sample(range(0, MICRO_BATCHES - ACCUMULATION, ACCUMULATION), 3)):
        stop_in(run, micro_batch + random.Random(micro_batch).randrange(ACCUMULATION))
    run.finish()
    assert_equal(run, straight())


@soak_only
@pytest.mark.parametrize("seed", range(20))
def test_sigterm_at_a_random_micro_batch_of_one_rank(new_run: Runs, straight: Runs, seed: int) -> None:
    run = new_run()
    stop_in(run, random.Random(100 + seed).randrange(MICRO_BATCHES - ACCUMULATION))
    run.finish()
    assert_equal(run, straight())


@pytest.mark.parametrize(
    ("seed", "on_ranks"), some([(seed, ([0], [1], [0, 1])[seed % 3]) for seed in range(20)], fast=1)
)
def test_sigterm_at_a_random_micro_batch_of_two_ranks(
    new_run: Runs, straight: Runs, seed: int, on_ranks: Iterable[int]
) -> None:
    """To one of them or both: they agree on the step, and each exits with the code."""
    run = new_run(ranks=2)
    stop_in(run, random.Random(200 + seed).randrange(MICRO_BATCHES - ACCUMULATION), on_ranks=on_ranks)
    run.finish()
    assert_equal(run, straight(ranks=2))


@soak_only
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGUSR1", 143), ("SIGHUP", 143)])
def test_other_signals_stop_it_as_well(new_run: Runs, straight: Runs, name: str, code: int) -> None:
    run = new_run()
    stop_in(run, 50, name=name, code=code)
    run.finish()
    assert_equal(run, straight())


@soak_only
@pytest.mark.parametrize("workers", [0, 2])
def test_a_signal_to_the_whole_process_group_stops_it_as_well(new_run: Runs, straight: Runs, workers: int) -> None:
    """As Ctrl-C in a terminal and a batch system do it: the processes that read ahead get it too."""
    run = new_run()

    def stop(victims: list[Victim]) -> None:
        victims[0].wait_until(lambda: newest(run.checkpoints) >= 10)
        victims[0].send_to_group(signal.SIGTERM)

    life = run.live(f"data.workers={workers}", meanwhile=stop, timeout=SOON, faults=[("slow", {"seconds": 0.1})])
    assert life.codes == [143], life.output[-4000:]
    assert micro_batches_lost(life) == 1
    run.finish(f"data.workers={workers}")
    assert_equal(run, straight())


@pytest.mark.parametrize("second", some([signal.SIGINT, signal.SIGTERM], fast=1))
def test_a_second_signal_ends_it_at_once_and_harms_nothing(new_run: Runs, straight: Runs, second: int) -> None:
    run = new_run()

    def stop_twice(victims: list[Victim]) -> None:
        victims[0].wait_until(lambda: newest(run.checkpoints) >= 5)
        victims[0].send(signal.SIGTERM)
        time.sleep(1.2)
        victims[0].send(second)

    life = run.live(meanwhile=stop_twice, timeout=SOON, faults=[("slow", {"seconds": 9, "after": 5})])
    assert life.codes == [{signal.SIGINT: 130, signal.SIGTERM: 143}[signal.Signals(second)]]
    assert life.saved == 5, "the step that was on its way is not waited for"
    run.finish()
    assert_equal(run, straight())


@soak_only
def test_max_hours_stops_it_before_they_are_over(new_run: Runs, straight: Runs) -> None:
    """Each step takes a second, of six that there are since the process began."""
    run = new_run()
    life = run.live(f"max_hours={6 / 3600}", faults=[("slow", {"seconds": 1})])
    assert life.codes == [75], life.output[-4000:]
    assert life.seconds < 6
    assert 1 <= life.saved <= 5
    assert micro_batches_lost(life) == 1
    run.finish()
    assert_equal(run, straight())


def test_the_program_as_a_user_starts_it_stops_at_a_signal(new_run: Runs, straight: Runs) -> None:
    run = new_run()

    def stop(victims: list[Victim]) -> None:
        victims[0].wait_until(lambda: newest(run.checkpoints) >= 5)
        victims[0].send(signal.SIGTERM)

    life = run.live(meanwhile=stop, plain=True, timeout=SOON)
    assert life.codes == [143], life.output
    assert (
        f"stopped by SIGTERM after step {life.saved}: run the same command again to resume from there." in life.output
    )
    assert "Traceback" not in life.output
    assert micro_batches_lost(life) == 1
    assert f"continuing after step {life.saved}" in run.finish().output
    assert_equal(run, straight())


@soak_only
@pytest.mark.parametrize("rank", ["launcher", "0", "1"])
def test_two_ranks_as_a_user_starts_them_stop_at_a_signal_to_one(new_run: Runs, straight: Runs, rank: str) -> None:
    """To the launcher, which hands it on, or to one of those that it has started."""
    run = new_run("trainer=ddp", "micro_batch=1")

    def stop(victims: list[Victim]) -> None:
        victims[0].wait_until(lambda: newest(run.checkpoints) >= 5)
        started = {child.environ().get("RANK", ""): child for child in psutil.Process(victims[0].pid).children()}
        os.kill(victims[0].pid if rank == "launcher" else started[rank].pid, signal.SIGTERM)

    life = run.live(meanwhile=stop, plain=True, timeout=SOON)
    assert life.codes == [143], life.output
    assert micro_batches_lost(life) == 1
    run.finish(plain=True)
    assert_equal(run, straight(ranks=2))
