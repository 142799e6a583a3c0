"""A disk that is full, or as good as full: older checkpoints stay, the run goes on, and stops after three failed saves."""

import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.bit_equality import assert_equal
from tests.faults.disturbed_runs import ACCUMULATION, Run, leftovers, newest, soak_only
from tests.faults.training_processes import Victim
from tests.run_files import contents, saved_steps

Runs = Callable[..., Run]
SLOW = ("slow", {"seconds": 0.15})
MEGABYTES = 8  # a run of 40 steps takes 3


@contextmanager
def small_disk(place: Path) -> Iterator[None]:
    """A file system of its own, of a few megabytes."""
    place.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk takes the rights of root")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def on_small_disk(new_run: Runs) -> Iterator[Run]:
    """A run whose folder lies on a small disk; what the tests themselves write of it lies elsewhere."""
    run = new_run()
    with small_disk(run.path.parent):
        run.path.mkdir()
        (run.folder / "diet").mkdir()
        (run.path / "diet").symlink_to(run.folder / "diet")
        yield run


def fill(run: Run) -> None:
    """Leave not a byte free."""
    with (run.path.parent / "filler").open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


def make_room(run: Run) -> None:
    (run.path.parent / "filler").unlink()


def step_is_done(victim: Victim, step: int) -> Callable[[], bool]:
    return lambda: f"step {step:6d} |" in victim.output


def test_three_saves_fail(on_small_disk: Run, straight: Runs) -> None:
    """From step 10 on nothing can be written: it stops after 25, and goes on from step 10 when there is room."""
    run, before = on_small_disk, {}

    def fill_after_10(victims: list[Victim]) -> None:
        victims[0].wait_until(step_is_done(victims[0], 11))
        fill(run)
        before.update(contents(run.checkpoints))

    life = run.live(faults=[SLOW], meanwhile=fill_after_10)
    assert life.codes == [74], life.output[-4000:]
    assert contents(run.checkpoints) == before
    assert saved_steps(run.path) == [5, 10]
    assert leftovers(run) == []
    for step in (15, 20, 25):
        assert f"the checkpoint of step {step} could not be saved: No space left on device" in life.output
    assert "stopped after step 25, because 3 checkpoints in a row could not be saved" in life.output
    assert "Traceback" not in life.output
    make_room(run)
    run.finish()
    assert_equal(run, straight())
    assert saved_steps(run.path) == [30, 35, 40]


@soak_only
@pytest.mark.parametrize(("full_after", "free_after"), [(11, 16), (11, 22), (18, 27)])
def test_it_is_full_for_some_time(on_small_disk: Run, straight: Runs, full_after: int, free_after: int) -> None:
    """One or two saves fail, rows and samples wait; nothing of them is lost."""
    run = on_small_disk

    def fill_for_some_steps(victims: list[Victim]) -> None:
        victims[0].wait_until(step_is_done(victims[0], full_after))
        fill(run)
        victims[0].wait_until(step_is_done(victims[0], free_after))
        make_room(run)

    life = run.finish(faults=[SLOW], meanwhile=fill_for_some_steps)
    assert "could not be saved: No space left on device" in life.output
    assert "metrics.jsonl cannot be written: No space left on device; its lines are kept in memory" in life.output
    assert "metrics.jsonl can be written again" in life.output
    assert "Traceback" not in life.output
    assert_equal(run, straight())
    assert saved_steps(run.path) == [30, 35, 40]


@soak_only
def test_it_is_full_between_two_saves(on_small_disk: Run, straight: Runs) -> None:
    """While it samples and logs: no save fails, and no row is lost."""
    run = on_small_disk

    def fill_for_some_steps(victims: list[Victim]) -> None:
        victims[0].wait_until(lambda: newest(run.checkpoints) == 15)
        fill(run)
        victims[0].wait_until(step_is_done(victims[0], 18))
        make_room(run)

    life = run.finish(faults=[("slow", {"seconds": 0.3})], meanwhile=fill_for_some_steps)
    assert "cannot be written: No space left on device" in life.output
    assert "could not be saved" not in life.output
    assert_equal(run, straight())


@soak_only
def test_it_is_full_while_it_samples(on_small_disk: Run, straight: Runs) -> None:
    """For the first time: later samples may find room in the block that their file has already."""
    run = on_small_disk

    def fill_for_one_step(victims: list[Victim]) -> None:
        victims[0].wait_until(step_is_done(victims[0], 9))
        fill(run)
        victims[0].wait_until(step_is_done(victims[0], 11))
        make_room(run)

    life = run.finish(faults=[("slow", {"seconds": 0.3})], meanwhile=fill_for_one_step)
    assert "samples.jsonl cannot be written: No space left on device" in life.output
    assert "samples.jsonl can be written again" in life.output
    assert_equal(run, straight())


@soak_only
def test_it_is_full_from_the_first_step_on(on_small_disk: Run) -> None:
    run = on_small_disk

    def fill_at_once(victims: list[Victim]) -> None:
        victims[0].wait_until(step_is_done(victims[0], 1))
        fill(run)

    life = run.live(faults=[SLOW], meanwhile=fill_at_once)
    assert life.codes == [74], life.output[-4000:]
    assert "could not be saved: No space left on device; there is no checkpoint yet" in life.output
    assert list(run.checkpoints.glob("*")) == []


def test_it_is_full_before_the_run_begins(on_small_disk: Run) -> None:
    """Nothing is trained that could not be kept."""
    fill(on_small_disk)
    life = on_small_disk.live(plain=True)
    assert life.codes == [1]
    assert "error: " in life.output
    assert "No space left on device" in life.output
    assert "Traceback" not in life.output
    assert life.diet == []


@soak_only
def test_it_is_full_when_a_run_goes_on(on_small_disk: Run, straight: Runs) -> None:
    """It begins, as far as it gets; the checkpoints that there were are still there."""
    run = on_small_disk
    run.live(faults=[("send", {"signal_name": "SIGKILL", "micro_batch": 17 * ACCUMULATION + 1})])
    fill(run)
    before = contents(run.checkpoints)
    life = run.live()
    assert life.codes[0] in (1, 74), life.output[-4000:]
    assert "No space left on device" in life.output
    assert "Traceback" not in life.output
    assert contents(run.checkpoints) == before
    make_room(run)
    run.finish()
    assert_equal(run, straight())


@soak_only
def test_two_ranks_stop_together(new_run: Runs, straight: Runs) -> None:
    """The disk is that of the first rank; the second would wait for it for ever."""
    run = new_run(ranks=2)
    with small_disk(run.path.parent):
        run.path.mkdir()
        (run.folder / "diet").mkdir()
        (run.path / "diet").symlink_to(run.folder / "diet")

        def fill_after_10(victims: list[Victim]) -> None:
            victims[0].wait_until(step_is_done(victims[0], 11))
            fill(run)

        life = run.live(faults=[SLOW], meanwhile=fill_after_10)
        assert life.codes == [74, 74], life.output[-4000:]
        make_room(run)
        run.finish()
        assert_equal(run, straight(ranks=2))


@soak_only
@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux limits the files of a process that runs")
def test_no_file_may_be_as_large_as_a_checkpoint(new_run: Runs, straight: Runs) -> None:
    """A quota, which needs no disk to be mounted: rows are written, checkpoints are not."""
    run = new_run()

    def limit(victims: list[Victim]) -> None:
        victims[0].wait_until(step_is_done(victims[0], 11))
        resource.prlimit(victims[0].pid, resource.RLIMIT_FSIZE, (200_000, 200_000))

    life = run.live(faults=[SLOW], meanwhile=limit)
    assert life.codes == [74], life.output[-4000:]
    assert "could not be saved: File too large" in life.output
    assert saved_steps(run.path) == [5, 10]
    assert leftovers(run) == []
    run.finish()
    assert_equal(run, straight())
