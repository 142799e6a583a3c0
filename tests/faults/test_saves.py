"""A kill before each change that a save makes to its folder, and in the middle of a write."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.bit_equality import assert_equal
from tests.faults.disturbed_runs import ACCUMULATION, Run, leftovers, newest, soak_only, some
from tests.run_files import saved_steps

Runs = Callable[..., Run]
STEP, BEFORE, PRUNED = "step_00000020", 15, "step_00000005"
CHANGES = [
    ("open", f".{STEP}.pt.tmp"),
    ("fsync", f".{STEP}.pt.tmp"),
    ("open", f".{STEP}.json.tmp"),
    ("fsync", f".{STEP}.json.tmp"),
    ("rename", f"{STEP}.json"),
    ("rename", f"{STEP}.pt"),
    ("fsync", "."),
    ("remove", f"{PRUNED}.pt"),
    ("remove", f"{PRUNED}.json"),
]
EXISTS_FROM = CHANGES.index(("rename", f"{STEP}.pt")) + 1


@pytest.fixture(params=some(["/dev/shm", ""], fast=1), ids=lambda place: place or "the same")
def temporary_files(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a run whose TMPDIR is that of the tests, or on another file system than its checkpoints."""
    if not request.param:
        yield {}
        return
    if not Path(request.param).is_dir() or Path(request.param).stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip(f"{request.param} is no other file system here")
    folder = Path(request.param) / f"gpt-lightning-{os.getpid()}"
    folder.mkdir()
    yield {"TMPDIR": str(folder)}
    shutil.rmtree(folder)


def goes_on(run: Run, straight: Run, environment: dict[str, str]) -> None:
    """What is left over goes as it starts again; it ends as the undisturbed run."""
    saved = newest(run.checkpoints)
    swept = ("send", {"signal_name": "SIGKILL", "micro_batch": saved * ACCUMULATION})  # the first that it begins
    assert run.live(faults=[swept], environment=environment).codes == [-signal.SIGKILL]
    assert leftovers(run) == []
    run.finish(environment=environment)
    assert_equal(run, straight)
    assert leftovers(run) == []
    assert saved_steps(run.path) == [30, 35, 40]


def test_a_save_changes_its_folder_in_this_order(new_run: Runs, tmp_path: Path) -> None:
    """Whatever is renamed is on the disk before, and nothing is removed before the new file and its name are."""
    run = new_run()
    run.finish(faults=[("record_changes", {"folder": str(run.checkpoints), "to": str(tmp_path / "changes")})])
    changes = [tuple(json.loads(line)) for line in (tmp_path / "changes").read_text().splitlines()]
    first = changes.index(CHANGES[0])
    assert changes[first : first + len(CHANGES)] == CHANGES
    assert f"step_{25:08d}" in changes[first + len(CHANGES) + 1][1], "there is a phase that is not in the list"


@pytest.mark.parametrize("change", some([*range(5, len(CHANGES) + 1), *range(5)], fast=1))
def test_killed_before_each_change_of_a_save(
    new_run: Runs, straight: Runs, temporary_files: dict[str, str], change: int
) -> None:
    run = new_run()
    # the last: as the next step's checkpoint begins to be saved
    step, number = (20, change) if change < len(CHANGES) else (25, 0)
    fault = ("send_at_change", {"folder": str(run.checkpoints), "step": step, "change": number})
    assert run.live(faults=[fault], environment=temporary_files).codes == [-signal.SIGKILL]
    assert newest(run.checkpoints) == (20 if change >= EXISTS_FROM else BEFORE)
    assert bool(leftovers(run) or saved_steps(run.path)[3:]) == (0 < change < len(CHANGES))
    goes_on(run, straight(), temporary_files)


@soak_only
@pytest.mark.parametrize("byte", [0, 1, 64, 4096, 100_000, 400_000])
def test_killed_in_the_middle_of_a_write(new_run: Runs, straight: Runs, byte: int) -> None:
    """By the kernel, as the file grows beyond a limit."""
    run = new_run()
    fault = ("die_at_byte", {"folder": str(run.checkpoints), "step": 20, "byte": byte})
    assert run.live(faults=[fault]).codes == [-signal.SIGXFSZ]
    assert (run.checkpoints / f".{STEP}.pt.tmp").stat().st_size == byte
    assert newest(run.checkpoints) == BEFORE
    goes_on(run, straight(), {})


@soak_only
@pytest.mark.parametrize("lost", [["pt"], ["json"], ["pt", "json"]])
def test_a_loss_of_power_undoes_renames_that_were_not_yet_on_the_disk(
    new_run: Runs, straight: Runs, lost: list[str]
) -> None:
    """Until the folder is synchronised, any of them may be gone afterwards."""
    run = new_run()
    before_sync = CHANGES.index(("fsync", "."))
    fault = ("send_at_change", {"folder": str(run.checkpoints), "step": 20, "change": before_sync})
    assert run.live(faults=[fault]).codes == [-signal.SIGKILL]
    for end in lost:
        (run.checkpoints / f"{STEP}.{end}").rename(run.checkpoints / f".{STEP}.{end}.tmp")
    assert newest(run.checkpoints) == BEFORE
    run.lives[-1] = run.lives[-1].leaving(BEFORE)
    goes_on(run, straight(), {})


@soak_only
@pytest.mark.parametrize("change", range(len(CHANGES)))
def test_a_signal_in_a_save_stops_it_at_the_next_step(new_run: Runs, straight: Runs, change: int) -> None:
    run = new_run()
    fault = {"folder": str(run.checkpoints), "step": 20, "change": change, "signal_name": "SIGTERM"}
    life = run.live(faults=[("send_at_change", fault)])
    assert life.codes == [143], life.output[-4000:]
    assert life.saved == 21
    run.finish()
    assert_equal(run, straight())
