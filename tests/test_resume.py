"""Where a start of a run begins: `resume`, and what may change on the way."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from gpt_lightning.checkpoint_folder import checkpoint_path
from running.commands.train import train
from tests.conftest import TINY, composed
from tests.run_files import (
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

RUN = [*TINY, "name=run", WITH_DIET]


def config_of(data_dir: Path, runs: Path, *more: str) -> dict[str, Any]:
    return composed([*RUN, f"data_dir={data_dir}", f"runs_dir={runs}", *more])


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
    with pytest.raises(ValueError, match=r"resume=never, but .*run has a checkpoint of step 12: start a new run"):
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
    with pytest.raises(ValueError, match=r"is outside .*run, which has its own checkpoints"):
        train(config_of(tiny_data, tmp_path, f"resume={other}"))


def test_what_was_begun_elsewhere_is_not_begun_anew(straight: Path, tiny_data: Path, tmp_path: Path) -> None:
    """Killed before the first checkpoint of its own, and started by the command that goes on by itself."""
    elsewhere = checkpoint_path(straight / "checkpoints", 8)
    train(config_of(tiny_data, tmp_path / "whole", f"resume={elsewhere}"))
    run = as_if_killed(tmp_path / "whole" / "run", tmp_path, after=0)
    with pytest.raises(ValueError, match=r"was started from .*step_00000008\.pt and has no checkpoint of its own yet"):
        train(config_of(tiny_data, tmp_path))
    train(config_of(tiny_data, tmp_path, f"resume={elsewhere}"))
    assert_same_state(final_checkpoint(run), final_checkpoint(straight))


@pytest.mark.parametrize(
    ("resume", "more", "sentence"),
    [
        (
            "nowhere.pt",
            (),
            r"resume=nowhere\.pt is not a checkpoint, and the file does not exist: it must be auto, never, or the path of a file",
        ),
        ("{}/checkpoints", (), r"checkpoints is not a checkpoint: it must be auto, never, or the path"),
        ("null", (), r"resume is None: it must be auto, never, or the path"),
        ("{}/checkpoints/step_00000008.pt", ("seed=3",), "was started with seed=1337, and now it is 3"),
        (
            "{}/checkpoints/step_00000008.pt",
            ("model.n_heads=4",),
            r"was started with model\.n_heads=2, and now it is 4",
        ),
        ("{}/checkpoints/step_00000008.json", (), "json is not a checkpoint: it must be"),
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
        ("optimizer=muon", "torch.optim.AdamW", "gpt_lightning.optim.MuonAdamW"),
        ("base_width=64", None, 64),
    ],
)
def test_what_defines_a_run_is_refused_by_name(
    straight: Path, tiny_data: Path, tmp_path: Path, override: str, then: object, now: object
) -> None:
    run = as_if_killed(straight, tmp_path, after=4)
    before = contents(run)
    with pytest.raises(ValueError, match=rf"was started with [\w.]+={then}, and now it is {now}: start a new run"):
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
    with pytest.raises(ValueError, match=r"max_steps is 14, but .* has already trained for 16 steps"):
        train(config_of(tiny_data, tmp_path, *constant, "max_steps=14"))
