"""Two processes and one run directory: the second is refused, the first does not notice."""

import re
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from tests.faults.bit_equality import assert_equal
from tests.faults.disturbed_runs import ACCUMULATION, SOAK, Run, newest, soak_only
from tests.faults.training_processes import Shell, Victim
from tests.run_files import contents

Runs = Callable[..., Run]
AT_MOST = 2.0  # seconds, from typing the command to the refusal


def refusal(run: Run) -> tuple[str, float]:
    """What a second start of the same command is told, and after how many seconds."""
    began = time.monotonic()
    second = Shell().bear(run.overrides, folder=run.folder / f"second{time.time_ns()}")
    assert second.wait() == 1, second.output
    return second.output, time.monotonic() - began


def names_the_owner(said: str, run: Run, pid: int) -> bool:
    pattern = rf"error: {re.escape(str(run.path))} is being trained by process {pid} on {socket.gethostname()} since [\d: -]+:.*"
    return re.fullmatch(pattern, said.strip()) is not None


def test_the_second_is_refused_and_the_first_unharmed(new_run: Runs, straight: Runs, record_property: Any) -> None:
    run, seconds = new_run(), []

    def start_others(victims: list[Victim]) -> None:
        victims[0].wait_until(lambda: newest(run.checkpoints) == 5)
        for _ in range(3 if SOAK else 2):  # one may meet a machine that is busy otherwise
            said, took = refusal(run)
            assert names_the_owner(said, run, victims[0].pid), said
            seconds.append(took)

    run.finish(faults=[("slow", {"seconds": 0.3})], meanwhile=start_others)
    assert_equal(run, straight())
    if SOAK:  # which runs alone on the machine
        assert min(seconds) < AT_MOST


@soak_only
def test_an_owner_that_sleeps_is_an_owner_still(new_run: Runs) -> None:
    run = new_run()

    def stop_and_go_on(victims: list[Victim]) -> None:
        victims[0].wait_until(lambda: newest(run.checkpoints) == 5)
        victims[0].send(signal.SIGSTOP)
        before = contents(run.checkpoints)
        said, _ = refusal(run)
        assert names_the_owner(said, run, victims[0].pid), said
        assert contents(run.checkpoints) == before
        victims[0].send(signal.SIGCONT)

    run.finish(faults=[("slow", {"seconds": 0.1})], meanwhile=stop_and_go_on)


@soak_only
def test_the_lock_of_a_dead_owner_is_taken_over(new_run: Runs, straight: Runs) -> None:
    run = new_run()
    killed = ("send", {"signal_name": "SIGKILL", "micro_batch": 12 * ACCUMULATION})
    assert run.live(faults=[killed]).codes == [-signal.SIGKILL]
    assert "process" in (run.path / "owner").read_text(), "it could not tidy up"
    run.finish()
    assert_equal(run, straight())
    assert not (run.path / "owner").exists()


@soak_only
def test_of_eight_that_start_at_once_one_trains(new_run: Runs, straight: Runs) -> None:
    run = new_run()
    slow = ("slow", {"seconds": 0.1})
    victims = [run.nursery.bear(run.overrides, folder=run.folder / f"start{n}", faults=[slow]) for n in range(8)]
    codes = [victim.wait() for victim in victims]
    assert sorted(codes) == [0] + [1] * 7
    assert_equal(run, straight(), diet=False)
