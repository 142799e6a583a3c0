"""A loss or a gradient that is no number ends the run before the update; one that is far off can be left out."""

import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from tests.faults.bit_equality import assert_equal, differences
from tests.faults.disturbed_runs import ACCUMULATION, GLOBAL_BATCH, Run, soak_only, some
from tests.faults.training_processes import Fault
from tests.run_files import final_checkpoint, saved_steps, untimed

Runs = Callable[..., Run]
STEP = 17
LONG = ["max_steps=160", "val_every=40", "callbacks.samples.every=40", "callbacks.checkpoints.every=20"]


def in_step(step: int, micro: int, *, of: str, factor: str) -> list[Fault]:
    return [(f"spoil_{of}", {"micro_batch": (step - 1) * ACCUMULATION + micro, "factor": factor})]


def rows(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.path / "faults.jsonl").read_text().splitlines()]


def stops_before_the_update(
    run: Run, straight: Run, faults: list[Fault], on_ranks: Iterable[int] | None = None, *, step: int = STEP
) -> dict[str, Any]:
    """All ranks end with 65, and no checkpoint holds anything of it; without the fault it goes on as if nothing had been.

    Returns:
        what faults.jsonl says of it.
    """
    life = run.live(faults=faults, on_ranks=on_ranks, timeout=60)
    assert life.codes == [65] * run.ranks, life.output[-4000:]
    assert "Traceback" not in life.output
    assert saved_steps(run.path) == [*range(5, step, 5)][-3:]
    assert untimed(run.path / "metrics.jsonl")[-1]["step"] < step
    assert not any(value != value for value in untimed(run.path / "metrics.jsonl")[-1].values())
    (row,) = rows(run)
    assert (row["step"], row["fault"]) == (step, "not finite")
    run.finish()
    assert_equal(run, straight)
    return row


@pytest.mark.parametrize("factor", some(["nan", "inf"], fast=1))
@pytest.mark.parametrize("micro", some(range(ACCUMULATION), fast=1))
def test_a_loss_that_is_no_number(new_run: Runs, straight: Runs, micro: int, factor: str) -> None:
    run = new_run()
    row = stops_before_the_update(run, straight(), in_step(STEP, micro, of="loss", factor=factor))
    assert row["micro_batches"] == [[0, micro]]
    micro_batch = GLOBAL_BATCH // ACCUMULATION
    first = (STEP - 1) * GLOBAL_BATCH + micro * micro_batch
    given = [row for row in run.lives[0].diet if row[0] in range(first, first + micro_batch)]
    assert [(place, source) for place, source, *_ in row["sequences"]] == [
        (place, source) for place, source, *_ in given
    ]


@pytest.mark.parametrize(
    ("of", "step"),
    some([("loss", 17), ("gradient", 20), ("loss", 16), ("gradient", 49)], fast=2),
)
def test_what_is_read_late_is_found_before_it_is_kept(new_run: Runs, straight: Runs, of: str, step: int) -> None:
    """On a GPU the numbers of a step are read during the next one, or when it is validated, sampled or saved."""
    faults = [("read_late", {}), *in_step(step, 0, of=of, factor="nan")]
    stops_before_the_update(new_run(), straight(), faults, step=step)


@soak_only
@pytest.mark.parametrize("factor", ["inf", "nan"])
def test_a_gradient_that_is_no_number(new_run: Runs, straight: Runs, factor: str) -> None:
    """Of which micro-batch it is nobody can say any more: all sequences of the step are named."""
    run = new_run()
    row = stops_before_the_update(run, straight(), in_step(STEP, ACCUMULATION - 1, of="gradient", factor=factor))
    places = [place for place, *_ in row["sequences"]]
    assert places == list(range((STEP - 1) * GLOBAL_BATCH, STEP * GLOBAL_BATCH))


@pytest.mark.parametrize(("of", "rank"), some([("loss", 1), ("loss", 0), ("gradient", 0), ("gradient", 1)], fast=1))
def test_on_one_of_two_ranks(new_run: Runs, straight: Runs, of: str, rank: int) -> None:
    run = new_run(ranks=2)
    faults = in_step(STEP, 1, of=of, factor="nan")
    row = stops_before_the_update(run, straight(ranks=2), faults, on_ranks=[rank])
    assert row["micro_batches"] == ([[rank, 1]] if of == "loss" else [])


@soak_only
def test_the_very_first_step(new_run: Runs, straight: Runs) -> None:
    run = new_run()
    life = run.live(faults=in_step(1, 0, of="loss", factor="nan"))
    assert life.codes == [65]
    assert saved_steps(run.path) == []
    run.finish()
    assert_equal(run, straight())


@soak_only
def test_a_learning_rate_beyond_reason(new_run: Runs) -> None:
    """The program itself, and a loss that nobody injected."""
    run = new_run("optimizer.lr=1e30")
    life = run.live(plain=True)
    assert life.codes == [65], life.output[-4000:]
    assert "was not applied: its loss is not finite" in life.output
    assert "Traceback" not in life.output


@soak_only
def test_a_spike_is_left_out(new_run: Runs, straight: Runs) -> None:
    """The step changes no weight and no moment, the schedule does not advance, and a line and faults.jsonl say so."""
    run, undisturbed = new_run("on_spike=skip", *LONG), straight("on_spike=skip", *LONG)
    every = "callbacks.checkpoints.every=1"
    life = run.live(
        every,
        "callbacks.checkpoints.keep=2",
        faults=[
            *in_step(150, ACCUMULATION - 1, of="loss", factor="1e3"),
            ("send", {"signal_name": "SIGTERM", "micro_batch": 149 * ACCUMULATION}),
        ],
    )
    assert life.codes == [143]
    assert saved_steps(run.path) == [149, 150]
    assert "step 150 was skipped" in life.output
    (row,) = rows(run)
    assert (row["step"], row["fault"]) == (150, "left out")
    run.finish()
    rates = [row["train/lr"] for row in untimed(run.path / "metrics.jsonl")]
    usual = [row["train/lr"] for row in untimed(undisturbed.path / "metrics.jsonl")]
    assert rates[:150] == usual[:150]
    assert rates[150:] == usual[149:-1]


@soak_only
@pytest.mark.parametrize("killed_at", [151 * ACCUMULATION + 1, 140 * ACCUMULATION, 159 * ACCUMULATION])
def test_a_run_with_a_spike_is_killed(new_run: Runs, killed_at: int) -> None:
    """What the spikes are measured against is in the checkpoint: the resumed run leaves out what the other one does."""
    spike = in_step(150, ACCUMULATION - 1, of="loss", factor="1e3")
    straight = new_run("on_spike=skip", *LONG)
    straight.finish(faults=spike)
    run = new_run("on_spike=skip", *LONG)
    life = run.live(faults=[*spike, ("send", {"signal_name": "SIGKILL", "micro_batch": killed_at})])
    assert life.codes == [-9]
    run.finish(faults=spike)
    assert_equal(run, straight)
    left_out, once = ([{**row, "time": ""} for row in rows(one)] for one in (run, straight))
    assert left_out in (once, once * 2)  # what has happened stays in the file, and may happen again


@soak_only
def test_without_a_spike_skipping_them_changes_nothing(straight: Runs) -> None:
    skipping, training = (final_checkpoint(straight(*on_spike, *LONG).path) for on_spike in (["on_spike=skip"], []))
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "random_states", "ledger"):
        assert list(differences(skipping[key], training[key])) == []
