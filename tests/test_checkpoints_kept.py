"""Which checkpoints a run keeps, which it goes on from, and what becomes of those that are damaged or gone."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from callbacks import RunStopped
from gpt_lightning.checkpoint_folder import checkpoint_path
from gpt_lightning.lit_gpt import NonFiniteLossError
from running.commands.train import train
from tests.conftest import TINY, composed
from tests.run_files import as_if_killed, assert_same_state, contents, final_checkpoint, metrics, saved_steps


def config_of(data_dir: Path, runs: Path, *more: str) -> dict[str, Any]:
    return composed([*TINY, "name=run", f"data_dir={data_dir}", f"runs_dir={runs}", *more])


@pytest.fixture(scope="module")
def straight(trained: Callable[..., Path]) -> Path:
    """12 steps in one go, with checkpoints of 4, 8 and 12."""
    return trained()


def test_the_best_and_permanent_ones_stay_besides_the_last_three(tiny_data: Path, tmp_path: Path) -> None:
    options = ["callbacks.checkpoints.best=true", "callbacks.checkpoints.permanent_every=3", "val_every=2"]
    train(config_of(tiny_data, tmp_path, *options, "callbacks.checkpoints.every=1"))
    run = tmp_path / "run"
    assert saved_steps(run) == [10, 11, 12]
    permanent = [int(path.stem[5:]) for path in sorted((run / "checkpoints" / "permanent").glob("*.pt"))]
    assert permanent == [3, 6, 9, 12]
    losses = {row["step"]: row["val/loss/mean"] for row in metrics(run) if "val/loss/mean" in row}
    (best,) = (run / "checkpoints" / "best").glob("*.pt")
    assert int(best.stem[5:]) == min(losses, key=losses.__getitem__)
    assert all(path.with_suffix(".json").exists() for path in (run / "checkpoints").rglob("*.pt"))


def test_damaged_checkpoints_are_passed_over_and_set_aside(
    straight: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = as_if_killed(straight, tmp_path, after=12)
    for step in (8, 12):
        path = checkpoint_path(run / "checkpoints", step)
        path.write_bytes(path.read_bytes()[: 1000 * step])
    train(config_of(tiny_data, tmp_path))
    assert "step_00000012.pt does not match its manifest, or has none: skipped, and" in capsys.readouterr().out
    assert_same_state(final_checkpoint(run), final_checkpoint(straight))
    assert saved_steps(run) == [4, 8, 12]
    assert sorted(path.name for path in (run / "checkpoints").glob("*.damaged")) == [
        "step_00000008.damaged",
        "step_00000008.json.damaged",
        "step_00000012.damaged",
        "step_00000012.json.damaged",
    ]


def test_with_all_of_them_damaged_nothing_begins(straight: Path, tiny_data: Path, tmp_path: Path) -> None:
    run = as_if_killed(straight, tmp_path, after=12)
    for path in (run / "checkpoints").glob("*.json"):
        path.unlink()
    before = contents(run)
    with pytest.raises(ValueError, match=r"all checkpoints in .*checkpoints are damaged \(step_00000012\.pt, "):
        train(config_of(tiny_data, tmp_path))
    assert contents(run) == before


def test_a_run_whose_checkpoints_are_gone_does_not_begin_anew(straight: Path, tiny_data: Path, tmp_path: Path) -> None:
    run = as_if_killed(straight, tmp_path, after=12)
    for path in (run / "checkpoints").iterdir():
        path.unlink()
    before = contents(run)
    with pytest.raises(
        ValueError, match=r"has saved a checkpoint of step 12, but no checkpoint is left: restore a copy"
    ):
        train(config_of(tiny_data, tmp_path))
    assert contents(run) == before


def test_a_kill_after_a_save_takes_nothing_from_the_best_and_the_permanent(tiny_data: Path, tmp_path: Path) -> None:
    """As it leaves a run between the save of step 8 and its links."""
    options = ["callbacks.checkpoints.best=true", "callbacks.checkpoints.permanent_every=8"]
    train(config_of(tiny_data, tmp_path / "whole", *options))
    run = as_if_killed(tmp_path / "whole" / "run", tmp_path, after=8)
    whole = sorted(str(path.relative_to(run)) for path in (run / "checkpoints").rglob("*/step*"))
    for path in (run / "checkpoints").rglob("*/step*"):
        path.unlink()
    train(config_of(tiny_data, tmp_path, *options))
    assert sorted(str(path.relative_to(run)) for path in (run / "checkpoints").rglob("*/step*")) == whole


BEST = ["callbacks.checkpoints.best=true", "callbacks.checkpoints.permanent_every=3", "val_every=3"]


@pytest.fixture
def best_apart(tiny_data: Path, tmp_path: Path) -> Path:
    """A run that was killed after step 9, whose checkpoint is the best so far, and lies there alone; and the best before."""
    train(config_of(tiny_data, tmp_path / "whole", *BEST))
    run = as_if_killed(tmp_path / "whole" / "run", tmp_path, after=8)
    folder = run / "checkpoints"
    shutil.rmtree(folder / "best")
    shutil.copytree(folder / "permanent", folder / "best")
    shutil.rmtree(folder / "permanent")
    for path in folder.glob("best/step_*3.*"):
        path.unlink()
    for path in folder.glob("best/step_00000012.*"):
        path.unlink()
    return run


def files_in(run: Path, place: str) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints" / place).glob("*.pt"))


def test_a_kill_before_the_old_best_is_removed_leaves_one(best_apart: Path, tiny_data: Path, tmp_path: Path) -> None:
    assert files_in(best_apart, "best") == ["step_00000006.pt", "step_00000009.pt"]
    with pytest.raises(RunStopped):
        train(config_of(tiny_data, tmp_path, *BEST, "max_hours=1e-6"))
    assert files_in(best_apart, "best") == files_in(best_apart, "permanent") == ["step_00000009.pt"]


def test_when_the_best_is_given_up_the_next_one_is_the_best(best_apart: Path, tiny_data: Path, tmp_path: Path) -> None:
    shutil.rmtree(best_apart / "checkpoints" / "best")  # among them that of step 6, the best that step 8 knows of
    train(config_of(tiny_data, tmp_path, *BEST, "optimizer.lr=1"))
    assert len(files_in(best_apart, "best")) == 1


def test_weights_that_an_update_ruins_are_not_saved(
    straight: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its loss and gradient were finite; with an epsilon of nothing the first update divides what has no gradient by 0."""
    run = tmp_path / "run"
    with pytest.raises(NonFiniteLossError, match=r"step 1 was applied, but its weights are not saved") as end:
        train(config_of(tiny_data, tmp_path, "optimizer.eps=0", "callbacks.checkpoints.every=1"))
    assert end.value.exit_code == 65
    assert saved_steps(run) == []
    assert (
        "loss and gradient are finite, but the weights after the update are not. Sequences: " in capsys.readouterr().out
    )
    train(config_of(tiny_data, tmp_path))
    assert_same_state(final_checkpoint(run), final_checkpoint(straight))


def test_checkpoints_without_their_environment_are_not_begun_over(
    straight: Path, tiny_data: Path, tmp_path: Path
) -> None:
    run = as_if_killed(straight, tmp_path, after=12)
    (run / "environment.json").unlink()
    before = contents(run)
    with pytest.raises(ValueError, match=r"has checkpoints but no environment\.json"):
        train(config_of(tiny_data, tmp_path))
    assert contents(run) == before
