"""SIGKILL: at any moment, and before each change that a save makes to its folder."""

import json
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.faults.bit_equality import assert_equal, micro_batches_lost
from tests.faults.disturbed_runs import ACCUMULATION, SAVED_EVERY, SMALL_RUN, SOAK, Run, leftovers, soak_only, some
from tests.faults.training_processes import MARK, PATIENCE, Shell, Victim, marked
from tests.run_files import saved_steps

Runs = Callable[..., Run]
Record = Callable[[str, Any], None]
GONE_AFTER = 10.0  # seconds after a kill, of every process that the killed one had started
KILLS_OF_A_SWEEP = 25


def in_a_save(run: Run) -> bool:
    """Whether what lies there is of a save that has begun and not ended."""
    return bool(leftovers(run) or saved_steps(run.path)[3:])


def goes_on_as_if_nothing_had_been(run: Run, straight: Run) -> None:
    run.finish()
    assert_equal(run, straight)
    assert saved_steps(run.path) == saved_steps(straight.path) == [30, 35, 40]
    assert leftovers(run) == []


@pytest.mark.parametrize("moment", some(range(38), fast=1))
def test_killed_at_a_random_moment(new_run: Runs, straight: Runs, record_property: Record, moment: int) -> None:
    """From its first second to its last; what it repeats is less than it takes to save, and a step that was on its way."""
    undisturbed = straight()
    seconds = random.Random(moment).uniform(0.05, 0.95) * undisturbed.lives[0].seconds
    life = None
    while life is None or life.codes == [0]:  # the run was faster than the undisturbed one
        run, sooner = new_run(), seconds

        def kill(victims: list[Victim], after: float = sooner) -> None:
            time.sleep(after)
            victims[0].send(signal.SIGKILL)

        life = run.live(meanwhile=kill)
        seconds *= 0.8
    assert life.codes == [-signal.SIGKILL]
    record_property("kills", 1)
    record_property("inside a save", int(in_a_save(run)))
    goes_on_as_if_nothing_had_been(run, undisturbed)
    assert 0 <= micro_batches_lost(life) <= (SAVED_EVERY + 1) * ACCUMULATION


def test_random_numbers_that_others_draw_go_on_as_well(new_run: Runs) -> None:
    """Training draws none of python's and numpy's; of what else does, a life more or less changes nothing."""
    undisturbed, run = new_run(), new_run()
    drawing = ("draw_random_numbers", {})
    undisturbed.finish(faults=[drawing])
    run.live(faults=[drawing, ("send", {"signal_name": "SIGKILL", "micro_batch": 23 * ACCUMULATION + 1})])
    run.finish(faults=[drawing])
    assert_equal(run, undisturbed)


@pytest.mark.parametrize(
    "step", some([step for step in (5, 10, 15, 20, 25, 30, 35, 40) for _ in range(2)][:12], fast=1)
)
def test_killed_while_a_save_is_seen(new_run: Runs, straight: Runs, record_property: Record, step: int) -> None:
    run, plain = new_run(), step == 5  # the one of make test
    temporary = run.checkpoints / f".step_{step:08d}.pt.tmp"

    def kill(victims: list[Victim]) -> None:
        victims[0].wait_until(temporary.exists, every=0.0005)
        victims[0].send(signal.SIGKILL)

    assert run.live(meanwhile=kill, plain=plain).codes == [-signal.SIGKILL]
    record_property("kills", 1)
    record_property("inside a save", int(in_a_save(run)))
    goes_on_as_if_nothing_had_been(run, straight())


def assert_no_process_is_left(mark: str) -> None:
    """Soon; how soon, only a machine that does nothing else can show."""
    end = time.monotonic() + (GONE_AFTER if SOAK else PATIENCE)
    while left := marked(mark):
        assert time.monotonic() < end, left
        time.sleep(0.1)


@pytest.mark.parametrize("moment", some(range(25), fast=1))
def test_no_process_outlives_a_run_with_readers(
    new_run: Runs, straight: Runs, record_property: Record, moment: int
) -> None:
    undisturbed = straight()
    seconds = random.Random(moment).uniform(0.05, 0.95) * undisturbed.lives[0].seconds
    life = None
    while life is None or life.codes == [0]:
        run, sooner = new_run("data.workers=2"), seconds

        def kill(victims: list[Victim], after: float = sooner) -> None:
            time.sleep(after)
            victims[0].send(signal.SIGKILL)

        life = run.live(meanwhile=kill, environment={MARK: str(run.folder)})
        seconds *= 0.8
    assert life.codes == [-signal.SIGKILL]
    record_property("kills", 1)
    assert_no_process_is_left(str(run.folder))
    goes_on_as_if_nothing_had_been(run, undisturbed)


@soak_only
def test_no_process_outlives_a_sweep(tiny_data: Path, tmp_path: Path, record_property: Record) -> None:
    """Of two jobs at once: first undisturbed; then, as often as it takes, from beginning to end with kills on the way."""
    chance, kills, sweeps, seconds = random.Random(0), 0, 0, 0.0
    while kills < KILLS_OF_A_SWEEP:
        folder = tmp_path / str(sweeps)
        command = ["-m", *SMALL_RUN, "name=run", f"data_dir={tiny_data}", f"runs_dir={folder}", f"sweep_dir={folder}"]
        code = None
        while code != 0:
            mark, began = f"{folder}_{kills}", time.monotonic()
            victim = Shell().bear([*command, "jobs_at_once=2", "seed=1,2"], folder=Path(mark), environment={MARK: mark})
            if sweeps and kills < KILLS_OF_A_SWEEP:
                time.sleep(chance.uniform(0.05, 0.95) * seconds)
                victim.send(signal.SIGKILL)
            code = victim.wait(600)
            assert code in (0, -signal.SIGKILL), victim.output
            if code:
                kills += 1
                assert_no_process_is_left(mark)
        seconds = seconds or time.monotonic() - began
        rows = json.loads((folder / "sweep.json").read_text())
        assert [row["state"] for row in rows] == ["done", "done"]
        for row in rows:
            ours, theirs = (SimpleNamespace(path=one / row["job"]) for one in (folder, tmp_path / "0"))
            assert_equal(ours, theirs, diet=False)  # type: ignore[arg-type]
        sweeps += 1
    record_property("kills", kills)
