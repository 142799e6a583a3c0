"""A run that goes on with other micro-batches, workers or ranks is the run it would have been."""

from pathlib import Path
from typing import Any

import pytest
import torch

from running.commands.train import train
from tests.conftest import TINY, composed, start
from tests.run_files import (
    WITH_DIET,
    as_if_killed,
    assert_same_rows,
    assert_same_state,
    diet,
    final_checkpoint,
    final_weights,
    metrics,
    same_bits,
    saved_steps,
)

GLOBAL_BATCH, MICRO_BATCH, STEPS, KILLED_AFTER = 12, 4, 12, 5
RUN = [
    *TINY,
    "name=run",
    f"global_batch={GLOBAL_BATCH}",
    f"micro_batch={MICRO_BATCH}",
    "model.dropout=0",  # its random numbers follow the way the global batch is cut
    "trainer.precision=32-true",
    "trainer.accelerator=cpu",  # which has as many ranks as are asked for
    "val_every=5",  # the checkpoint is that of a validated step
    "callbacks.checkpoints.every=5",
    WITH_DIET,
]
TWO_RANKS = ["trainer.devices=2", "trainer.strategy=ddp"]


def overrides(data_dir: Path, runs: Path, *more: str) -> list[str]:
    return [*RUN, f"data_dir={data_dir}", f"runs_dir={runs}", *more]


def config_of(data_dir: Path, runs: Path, *more: str) -> dict[str, Any]:
    return composed(overrides(data_dir, runs, *more))


@pytest.fixture(scope="module")
def straight(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """On one rank, in one go."""
    runs = tmp_path_factory.mktemp("straight")
    train(config_of(tiny_data, runs))
    return runs / "run"


@pytest.fixture(scope="module")
def on_two_ranks(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """On two ranks, in one go."""
    runs = tmp_path_factory.mktemp("two")
    answer = start(overrides(tiny_data, runs, *TWO_RANKS, "micro_batch=2"))
    assert answer.returncode == 0, answer.stderr
    return runs / "run"


def assert_went_on_as(straight: Path, run: Path, *, after: int = KILLED_AFTER) -> None:
    """The same rows, weights and checkpoints; and after the kill exactly the sequences of the straight run, in its order."""
    assert list(diet(straight)) == list(range(STEPS * GLOBAL_BATCH))
    assert diet(run) == diet(straight, after=after * GLOBAL_BATCH)
    assert [row["step"] for row in metrics(run) if "train/loss" in row] == [2, 4, 6, 8, 10, 12]
    assert [row["step"] for row in metrics(run) if "val/loss/mean" in row] == [5, 10, 12]
    assert_same_rows(metrics(run), metrics(straight), rel=1e-5)
    assert saved_steps(run) == saved_steps(straight) == [5, 10, 12]
    for name, ours in final_weights(straight).items():
        torch.testing.assert_close(final_weights(run)[name], ours, atol=1e-5, rtol=1e-4)
    assert final_checkpoint(run)["diet"] == final_checkpoint(straight)["diet"]
    assert final_checkpoint(run)["ledger"] == final_checkpoint(straight)["ledger"]


@pytest.mark.parametrize(("micro_batch", "workers"), [(1, 0), (2, 0), (3, 0), (6, 2), (12, 0)])
def test_another_micro_batch_goes_on_as_if_nothing_had_been(
    straight: Path, tiny_data: Path, tmp_path: Path, micro_batch: int, workers: int
) -> None:
    """The 15 micro-batches before the kill are whole steps of one or three, and of no other accumulation: they do not count."""
    run = as_if_killed(straight, tmp_path, after=KILLED_AFTER)
    train(config_of(tiny_data, tmp_path, f"micro_batch={micro_batch}", f"data.workers={workers}"))
    assert_went_on_as(straight, run)
    done = final_checkpoint(run)["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["completed"]
    assert done == STEPS * GLOBAL_BATCH // micro_batch


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")  # on a machine with fewer cores
@pytest.mark.parametrize("workers", [2, 4])
def test_other_workers_go_on_with_the_same_bits(straight: Path, tiny_data: Path, tmp_path: Path, workers: int) -> None:
    run = as_if_killed(straight, tmp_path, after=KILLED_AFTER)
    train(config_of(tiny_data, tmp_path, f"data.workers={workers}"))
    assert_went_on_as(straight, run)
    assert metrics(run) == metrics(straight)
    assert same_bits(final_weights(run), final_weights(straight))


def test_a_run_moves_through_several_machines(straight: Path, tiny_data: Path, tmp_path: Path) -> None:
    """Killed twice, each time going on with other micro-batches; once with the checkpoint of a run that had been moved."""
    first, second = tmp_path / "first", tmp_path / "second"
    as_if_killed(straight, first, after=5)
    train(config_of(tiny_data, first, "micro_batch=1"))
    run = as_if_killed(first / "run", second, after=10)
    train(config_of(tiny_data, second, "micro_batch=6", "data.workers=1"))
    assert_went_on_as(straight, run, after=10)


def test_one_rank_goes_on_as_two(straight: Path, tiny_data: Path, tmp_path: Path) -> None:
    run = as_if_killed(straight, tmp_path, after=KILLED_AFTER)
    answer = start(overrides(tiny_data, tmp_path, *TWO_RANKS, "micro_batch=3", "data.workers=1"))
    assert answer.returncode == 0, answer.stderr
    assert_went_on_as(straight, run)


def test_two_ranks_go_on_as_one(straight: Path, on_two_ranks: Path, tiny_data: Path, tmp_path: Path) -> None:
    run = as_if_killed(on_two_ranks, tmp_path, after=KILLED_AFTER)
    train(config_of(tiny_data, tmp_path, "micro_batch=12"))
    assert_went_on_as(straight, run)


def test_two_ranks_go_on_with_the_same_bits(on_two_ranks: Path, tiny_data: Path, tmp_path: Path) -> None:
    run = as_if_killed(on_two_ranks, tmp_path, after=KILLED_AFTER)
    answer = start(overrides(tiny_data, tmp_path, *TWO_RANKS, "micro_batch=2"))
    assert answer.returncode == 0, answer.stderr
    assert_same_state(final_checkpoint(run), final_checkpoint(on_two_ranks))
    assert metrics(run) == metrics(on_two_ranks)


def test_two_ranks_keep_the_ledger_of_one(straight: Path, on_two_ranks: Path) -> None:
    """Also of the tokens that bear loss, of which the ranks have different numbers."""
    kept = [{k: v for k, v in row.items() if k.startswith(("mix/", "tokens"))} for row in metrics(on_two_ranks)]
    assert kept == [{k: v for k, v in row.items() if k.startswith(("mix/", "tokens"))} for row in metrics(straight)]
    assert any(row.get("mix/realised_loss_bearing/docstrings", 0) > 0 for row in kept)
    assert_went_on_as(straight, on_two_ranks, after=0)
