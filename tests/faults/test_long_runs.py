"""Retention over many saves, and what watches a run."""

from collections.abc import Callable

import pytest

from gpt_lightning.verified_checkpoint import verify_checkpoint
from tests.faults.bit_equality import assert_equal, differences
from tests.faults.disturbed_runs import ACCUMULATION, SOAK, Run, leftovers, soak_only
from tests.run_files import final_checkpoint, saved_steps

Runs = Callable[..., Run]
LONG = [
    "max_steps=1000",
    "log_every=10",
    "val_every=100",
    "callbacks.samples.every=100",
    "callbacks.checkpoints.every=10",
]
LONG += ["curriculum.max_epochs.docstrings=100"]
STEPS, EVERY = (1000, 10) if SOAK else (40, 5)
if not SOAK:
    LONG = []


def exactly(run: Run, steps: list[int]) -> None:
    """These checkpoints, each of which verifies, and no other file beside them."""
    assert saved_steps(run.path) == steps
    for path in run.checkpoints.glob("*.pt"):
        verify_checkpoint(path)
    assert len([path for path in run.checkpoints.iterdir() if path.is_file()]) == 2 * len(steps)
    assert leftovers(run) == []


def test_the_oldest_that_is_kept_is_gone_on_from(new_run: Runs, straight: Runs) -> None:
    run, kept = new_run(*LONG), [STEPS - 2 * EVERY, STEPS - EVERY, STEPS]
    run.finish(timeout=600)
    exactly(run, kept)
    run.lives[-1] = run.lives[-1].leaving(kept[0])
    life = run.finish(f"resume={run.checkpoints / f'step_{kept[0]:08d}.pt'}")
    assert f"continuing after step {kept[0]}" in life.output
    exactly(run, kept)
    assert_equal(run, straight(*LONG))


@soak_only
def test_a_run_goes_on_from_its_oldest_and_is_killed(new_run: Runs, straight: Runs) -> None:
    """Started again with the very same words, it goes on and does not go back once more."""
    run, kept = new_run(*LONG), [STEPS - 2 * EVERY, STEPS - EVERY, STEPS]
    run.finish(timeout=600)
    resume = f"resume={run.checkpoints / f'step_{kept[0]:08d}.pt'}"
    run.lives[-1] = run.lives[-1].leaving(kept[0])
    killed = ("send", {"signal_name": "SIGKILL", "micro_batch": (STEPS - 2) * ACCUMULATION})
    assert run.live(resume, faults=[killed]).codes == [-9]
    assert f"continuing after step {kept[1]}" in run.finish(resume).output
    exactly(run, kept)
    assert_equal(run, straight(*LONG))


OFF = {
    "validation": ["~callbacks.validation", "val_every=100000"],
    "samples": ["~callbacks.samples"],
    "both": ["~callbacks.validation", "val_every=100000", "~callbacks.samples"],
    "metrics": ["~callbacks.throughput", "log_every=40"],
    "more of all": ["val_every=1", "callbacks.samples.every=1", "callbacks.checkpoints.every=1"],
}


@pytest.mark.parametrize("watchers", list(OFF) if SOAK else ["both"])
def test_watchers_change_nothing(straight: Runs, watchers: str) -> None:
    """With them or without: weights, optimizer, schedule, random states, ledger."""
    ours, theirs = (final_checkpoint(straight(*more).path) for more in (OFF[watchers], []))
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "random_states", "global_step", "diet"):
        assert list(differences(ours[key], theirs[key])) == []
    assert list(differences(ours["ledger"]["seen"], theirs["ledger"]["seen"])) == []
