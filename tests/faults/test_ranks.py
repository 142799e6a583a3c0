"""Several ranks: killed and going on with another number of them, sharded or not; and one that dies."""

import random
import signal
from collections.abc import Callable

import pytest

from tests.faults.bit_equality import assert_equal, assert_same_diet, micro_batches_lost
from tests.faults.disturbed_runs import ACCUMULATION, MICRO_BATCHES, Run, soak_only, some
from tests.run_files import assert_same_rows, final_checkpoint, final_weights, untimed

Runs = Callable[..., Run]
# dropout's random numbers and the order of additions follow the way the global batch is cut
MOVABLE = ["model.dropout=0", "trainer.precision=32-true"]


def killed(micro_batch: int) -> tuple[str, dict[str, object]]:
    return ("send", {"signal_name": "SIGKILL", "micro_batch": micro_batch})


def is_the_same_run_but_for_rounding(run: Run, straight: Run) -> None:
    """The same sequences, rows and ledger; losses within 1e-5, weights within a thousandth of their norm."""
    assert_same_diet(run, straight)
    assert_same_rows(untimed(run.path / "metrics.jsonl"), untimed(straight.path / "metrics.jsonl"), rel=1e-5)
    assert final_checkpoint(run.path)["ledger"] == final_checkpoint(straight.path)["ledger"]
    theirs = final_weights(straight.path)
    for name, ours in final_weights(run.path).items():
        assert (ours - theirs[name]).norm() <= 1e-3 * theirs[name].norm().clamp(min=1e-3), name


@soak_only
@pytest.mark.parametrize(
    "lives",
    [
        [("ddp", 2), ("ddp", 1), ("ddp", 2)],
        [("fsdp", 2), ("fsdp", 1)],
        [("fsdp", 2), ("ddp", 2), ("ddp", 1), ("fsdp", 2)],
        [("ddp", 1), ("fsdp", 2)],
    ],
    ids=lambda lives: " ".join(f"{strategy}{ranks}" for strategy, ranks in lives),
)
def test_killed_it_goes_on_with_another_number_of_ranks(
    new_run: Runs, straight: Runs, lives: list[tuple[str, int]]
) -> None:
    run = new_run(*MOVABLE)
    for n, (run.strategy, run.ranks) in enumerate(lives):
        if n < len(lives) - 1:
            at = MICRO_BATCHES * (n + 1) // len(lives) + 1
            assert run.live(faults=[killed(at)]).codes == [-signal.SIGKILL] * run.ranks
        else:
            run.finish()
    is_the_same_run_but_for_rounding(run, straight(*MOVABLE))


@soak_only
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_on_equally_many_ranks_it_goes_on_with_the_same_bits(new_run: Runs, straight: Runs, strategy: str) -> None:
    """Dropout and all."""
    undisturbed, run = straight(ranks=2, strategy=strategy), new_run(ranks=2)
    run.strategy = strategy
    assert run.live(faults=[killed(17 * ACCUMULATION + 1)]).codes == [-signal.SIGKILL] * 2
    run.finish()
    assert_equal(run, undisturbed)


@soak_only
@pytest.mark.parametrize("rank", [1, 0])
def test_a_sharded_run_stops_at_a_signal_to_one_rank(new_run: Runs, straight: Runs, rank: int) -> None:
    run = new_run(ranks=2)
    run.strategy = "fsdp"
    micro_batch = random.Random(rank).randrange(MICRO_BATCHES - ACCUMULATION)
    stop = ("send", {"signal_name": "SIGTERM", "micro_batch": micro_batch})
    life = run.live(faults=[stop], on_ranks=[rank], timeout=30)
    assert life.codes == [143, 143], life.output[-4000:]
    assert life.saved == micro_batch // ACCUMULATION + 1
    assert micro_batches_lost(life) == 1
    run.finish()
    assert_equal(run, straight(ranks=2, strategy="fsdp"))


@pytest.mark.parametrize("strategy", some(["ddp", "fsdp"], fast=1))
@pytest.mark.parametrize("rank", some([1, 0], fast=1))
def test_a_rank_that_dies_takes_the_other_down(new_run: Runs, straight: Runs, rank: int, strategy: str) -> None:
    """Within a minute; and the run goes on from its newest checkpoint."""
    run = new_run(ranks=2)
    run.strategy = strategy
    life = run.live(faults=[killed(12 * ACCUMULATION + 1)], on_ranks=[rank], timeout=60)
    assert life.codes[rank] == -signal.SIGKILL
    assert life.codes[1 - rank] not in (0, 143, -signal.SIGKILL), life.output[-4000:]
    run.finish()
    assert_equal(run, straight(ranks=2, strategy=strategy))
