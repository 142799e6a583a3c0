"""Where a start of a run begins: `resume`, what may change on the way, and which checkpoints stay."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

import launch
from callbacks import Stopped
from gpt_lightning.checkpoint_folder import checkpoint_path
from gpt_lightning.lit_gpt import NotFinite
from tests.conftest import TINY
from tests.runs import (
    WITH_DIET,
    as_if_killed,
    assert_same_state,
    contents,
    diet,
    final_checkpoint,
    final_weights,
    metrics,
    same_bits,
    saved_steps,
)
from train import train

RUN = [*TINY, "name=run", WITH_DIET]


def config_of(data_dir: Path, runs: Path, *more: str) -> dict[str, Any]:
    return launch.compose_config("train", [*RUN, f"data_dir={data_dir}", f"runs_dir={runs}", *more])


def changes_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "changes.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def straight(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 steps in one go, with checkpoints of 4, 8 and 12."""
    runs = tmp_path_factory.mktemp("straight")
    train(config_of(tiny_data, runs))
    return runs / "run"


# ── never ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_never_goes_on_with_nothing(straight: Path, tiny_data: Path) -> None:
    before = contents(straight)
    with pytest.raises(ValueError, match=r"resume=never, and .*run has a checkpoint of step 12: choose another run"):
        train(config_of(tiny_data, straight.parent, "resume=never"))
    assert contents(straight) == before


def test_never_begins_what_is_new(straight: Path, tiny_data: Path, tmp_path: Path) -> None:
    train(config_of(tiny_data, tmp_path, "resume=never"))
    assert same_bits(final_weights(tmp_path / "run"), final_weights(straight))


# ── at a checkpoint that is named ────────────────────────────────────────────────────────────────────────────────────


def test_a_run_taken_back_is_the_run_it_was(straight: Path, tiny_data: Path, tmp_path: Path) -> None:
    run = as_if_killed(straight, tmp_path, after=12)
    train(config_of(tiny_data, tmp_path, f"resume={checkpoint_path(run / 'checkpoints', 4)}"))
    assert_same_state(final_checkpoint(run), final_checkpoint(straight))
    assert metrics(run) == metrics(straight)
    assert diet(run) == diet(straight, after=4 * 8)
    assert saved_steps(run) == [4, 8, 12]
    assert sorted(path.stem for path in (run / "checkpoints" / "given_up" / "1").glob("*.pt")) == [
        "step_00000008",
        "step_00000012",
    ]


def test_the_same_command_does_not_take_it_back_again(straight: Path, tiny_data: Path, tmp_path: Path) -> None:
    """As Slurm starts it again: it goes on from what was saved since."""
    run = as_if_killed(straight, tmp_path, after=12)
    back = [f"resume={checkpoint_path(run / 'checkpoints', 4)}"]
    train(config_of(tiny_data, tmp_path, *back))
    for step in (4, 12):  # the one that it was taken back to is pruned by now
        for path in (run / "checkpoints").glob(f"step_{step:08d}.*"):
            path.unlink()
    for path in (run / "diet").iterdir():
        path.unlink()
    train(config_of(tiny_data, tmp_path, *back, "on_spike=skip"))
    assert min(diet(run)) == 8 * 8
    assert [row["after_step"] for row in changes_of(run)] == [4, 8]


def test_a_checkpoint_from_elsewhere_goes_on_in_a_new_folder(straight: Path, tiny_data: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "drive"
    elsewhere.mkdir()
    for end in ("pt", "json"):
        source = checkpoint_path(straight / "checkpoints", 8).with_suffix(f".{end}")
        (elsewhere / source.name).write_bytes(source.read_bytes())
    train(config_of(tiny_data, tmp_path, f"resume={elsewhere / 'step_00000008.pt'}"))
    run = tmp_path / "run"
    assert_same_state(final_checkpoint(run), final_checkpoint(straight))
    assert metrics(run) == metrics(straight, after=8)
    other = checkpoint_path(straight / "checkpoints", 4)
    with pytest.raises(ValueError, match=r"lies elsewhere, and .*run has checkpoints of its own"):
        train(config_of(tiny_data, tmp_path, f"resume={other}"))


def test_what_was_begun_elsewhere_is_not_begun_anew(straight: Path, tiny_data: Path, tmp_path: Path) -> None:
    """Killed before the first checkpoint of its own, and started by the command that goes on by itself."""
    elsewhere = checkpoint_path(straight / "checkpoints", 8)
    train(config_of(tiny_data, tmp_path / "whole", f"resume={elsewhere}"))
    run = as_if_killed(tmp_path / "whole" / "run", tmp_path, after=0)
    with pytest.raises(ValueError, match=r"was begun at .*step_00000008\.pt and has no checkpoint of its own yet"):
        train(config_of(tiny_data, tmp_path))
    train(config_of(tiny_data, tmp_path, f"resume={elsewhere}"))
    assert_same_state(final_checkpoint(run), final_checkpoint(straight))


@pytest.mark.parametrize(
    ("resume", "more", "sentence"),
    [
        (
            "nowhere.pt",
            (),
            r"resume=nowhere\.pt is no checkpoint, there is no such file: it must be auto, never, or the path of a file",
        ),
        ("{}/checkpoints", (), r"checkpoints is no checkpoint: it must be auto, never, or the path"),
        ("null", (), r"resume is None: it must be auto, never, or the path"),
        ("{}/checkpoints/step_00000008.pt", ("seed=3",), "was begun with seed=1337, and now it is 3"),
        ("{}/checkpoints/step_00000008.pt", ("model.n_heads=4",), r"was begun with model\.n_heads=2, and now it is 4"),
        ("{}/checkpoints/step_00000008.json", (), "json is no checkpoint: it must be"),
    ],
)
def test_what_cannot_be_resumed_is_refused(
    straight: Path, tiny_data: Path, tmp_path: Path, resume: str, more: tuple[str, ...], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        train(config_of(tiny_data, tmp_path, f"resume={resume.format(straight)}", *more))
    assert not (tmp_path / "run").exists()


# ── what may change, and what may not ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("override", "then", "now"),
    [
        ("seed=7", 1337, 7),
        ("model.dropout=0.1", 0.2, 0.1),
        ("global_batch=16", 8, 16),
        ("init_from=somewhere", None, "somewhere"),
        ("optimizer=adamw_8bit", "torch.optim.AdamW", "bitsandbytes.optim.AdamW8bit"),
    ],
)
def test_what_defines_a_run_is_refused_by_name(
    straight: Path, tiny_data: Path, tmp_path: Path, override: str, then: object, now: object
) -> None:
    run = as_if_killed(straight, tmp_path, after=4)
    before = contents(run)
    with pytest.raises(ValueError, match=rf"was begun with [\w.]+={then}, and now it is {now}: choose another run"):
        train(config_of(tiny_data, tmp_path, override))
    assert contents(run) == before


def test_all_that_defines_a_run_and_has_changed_is_named(straight: Path, tiny_data: Path, tmp_path: Path) -> None:
    as_if_killed(straight, tmp_path, after=4)
    with pytest.raises(ValueError, match="with seed=1337, and now it is 7") as refusal:
        train(config_of(tiny_data, tmp_path, "seed=7", "model.dropout=0.1", "optimizer.lr=0.1"))
    assert "with model.dropout=0.2, and now it is 0.1" in str(refusal.value)
    assert "optimizer.lr" not in str(refusal.value)


def test_a_changed_learning_rate_is_logged_and_holds(
    straight: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = as_if_killed(straight, tmp_path, after=4)
    train(config_of(tiny_data, tmp_path, "optimizer.lr=1e-3", "optimizer.weight_decay=0.5", "log_every=1"))
    then = {row["step"]: row["train/lr"] for row in metrics(straight)}
    now = {row["step"]: row["train/lr"] for row in metrics(run)}
    assert [now[step] for step in (6, 8, 10, 12)] == pytest.approx([then[step] / 2 for step in (6, 8, 10, 12)])
    assert [now[step] for step in (2, 4)] == [then[step] for step in (2, 4)]
    state = final_checkpoint(run)["optimizer_states"][0]
    assert {group["weight_decay"] for group in state["param_groups"]} == {0, 0.5}
    (row,) = changes_of(run)
    assert row["after_step"] == 4
    assert row["changes"]["optimizer.lr"] == [0.002, 0.001]
    assert "changed from here on: optimizer.lr=0.001, was 0.002" in capsys.readouterr().out


def test_a_run_may_be_made_longer(straight: Path, tiny_data: Path, tmp_path: Path) -> None:
    """Where its mix does not follow the run's length: what is done stays what it was, the schedule is the longer one's."""
    constant = ["curriculum=constant", "curriculum.mixes.base={stdlib:1}", "callbacks.samples.every=100"]
    train(config_of(tiny_data, tmp_path, *constant))
    train(config_of(tiny_data, tmp_path, *constant, "max_steps=16"))
    rows = metrics(tmp_path / "run")
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 10, 12, 14, 16]
    share = 0.5 * (1 + math.cos(math.pi * (15 - 2) / (16 - 2)))
    assert rows[-1]["train/lr"] == pytest.approx(0.002 * share)
    with pytest.raises(ValueError, match=r"max_steps is 14, and 16 steps are done"):
        train(config_of(tiny_data, tmp_path, *constant, "max_steps=14"))


# ── which checkpoints stay ───────────────────────────────────────────────────────────────────────────────────────────


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
    assert (
        "step_00000012.pt does not agree with its manifest, or has none: passed over; it is" in capsys.readouterr().out
    )
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
    with pytest.raises(ValueError, match=r"no checkpoint in .*checkpoints is undamaged \(step_00000012\.pt, "):
        train(config_of(tiny_data, tmp_path))
    assert contents(run) == before


def test_a_run_whose_checkpoints_are_gone_does_not_begin_anew(straight: Path, tiny_data: Path, tmp_path: Path) -> None:
    run = as_if_killed(straight, tmp_path, after=12)
    for path in (run / "checkpoints").iterdir():
        path.unlink()
    before = contents(run)
    with pytest.raises(ValueError, match=r"has saved a checkpoint of step 12, and none is left: put a copy back"):
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
    with pytest.raises(Stopped):
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
    with pytest.raises(NotFinite, match=r"step 1 was made, and what it has made of the weights is not saved") as end:
        train(config_of(tiny_data, tmp_path, "optimizer.eps=0", "callbacks.checkpoints.every=1"))
    assert end.value.exit_code == 65
    assert saved_steps(run) == []
    assert (
        "loss and gradient are finite, the weights after the update are not. The sequences: " in capsys.readouterr().out
    )
    train(config_of(tiny_data, tmp_path))
    assert_same_state(final_checkpoint(run), final_checkpoint(straight))


def test_checkpoints_without_their_environment_are_not_begun_over(
    straight: Path, tiny_data: Path, tmp_path: Path
) -> None:
    run = as_if_killed(straight, tmp_path, after=12)
    (run / "environment.json").unlink()
    before = contents(run)
    with pytest.raises(ValueError, match=r"has checkpoints and no environment\.json"):
        train(config_of(tiny_data, tmp_path))
    assert contents(run) == before
