"""What a run left behind, as tests compare it; and a run as if it had been killed."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt_lightning.checkpoint_folder import SAVED_STEPS_FILE, newest_valid_checkpoint
from gpt_lightning.verified_checkpoint import read_checkpoint

WITH_DIET = "+callbacks.diet_log._target_=callbacks.SampleOrderLog"
_TIMING = ("speed/", "memory/")
_ROUNDED = ("train/", "val/")  # sums of floats, whose last bits follow the way a global batch is cut

Row = dict[str, Any]
Sequence = tuple[
    str, int, int
]  # source, where its targets begin in the source's stream, checksum of what the model saw


def untimed(path: Path) -> list[Row]:
    """The rows of a metrics.jsonl without what a clock measured."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in row.items() if not key.startswith(_TIMING)} for row in rows]


def metrics(run: Path, *, after: int = 0) -> list[Row]:
    """The rows of a run of the steps after one."""
    return [row for row in untimed(run / "metrics.jsonl") if row["step"] > after]


def assert_same_rows(ours: list[Row], theirs: list[Row], *, rel: float) -> None:
    """The same steps and the same keys; losses and gradients within `rel`, everything that is counted exactly."""
    assert [list(row) for row in ours] == [list(row) for row in theirs]
    for our, their in zip(ours, theirs, strict=True):
        for key, value in our.items():
            tolerance = rel if key.startswith(_ROUNDED) and key != "train/lr" else 0
            assert value == pytest.approx(their[key], rel=tolerance, abs=0), (our["step"], key)


def final_checkpoint(run: Path) -> dict[str, Any]:
    path = newest_valid_checkpoint(run / "checkpoints")
    assert path is not None
    return read_checkpoint(path)


def final_weights(run: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = final_checkpoint(run)["state_dict"]
    return state


def same_bits(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(value, theirs[key]) for key, value in ours.items())


def identical(ours: Any, theirs: Any) -> bool:
    """Equal to the last bit, whatever is nested in what."""
    if isinstance(ours, torch.Tensor):
        return isinstance(theirs, torch.Tensor) and ours.dtype == theirs.dtype and torch.equal(ours, theirs)
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(identical(value, theirs[key]) for key, value in ours.items())
    if isinstance(ours, (list, tuple)):
        return len(ours) == len(theirs) and all(map(identical, ours, theirs))
    return bool(ours == theirs)


def assert_same_state(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Of two checkpoints: weights, optimizer, schedule, random states, ledger and diet, bit for bit."""
    keys = ("global_step", "state_dict", "optimizer_states", "lr_schedulers", "random_states", "ledger", "diet")
    assert [key for key in keys if not identical(ours[key], theirs[key])] == []


def saved_steps(run: Path) -> list[int]:
    """The steps of its checkpoints."""
    return [int(path.stem.removeprefix("step_")) for path in sorted((run / "checkpoints").glob("*.pt"))]


def diet(run: Path, *, after: int = 0) -> dict[int, Sequence]:
    """What SampleOrderLog says that the model was given, by its place in the run and in that order; each place once.

    Args:
        after: leave out the sequences with a smaller number.
    """
    lines = [line for path in (run / "diet").iterdir() for line in path.read_text(encoding="utf-8").splitlines()]
    rows = [json.loads(line) for line in lines]
    by_place = {row[0]: (row[1], row[2], row[3]) for row in rows}
    assert len(by_place) == len(rows), "a place of the run was trained on twice"
    return {place: by_place[place] for place in sorted(by_place) if place >= after}


def as_if_killed(run: Path, folder: Path, *, after: int) -> Path:
    """A copy of a run into another folder of runs, as a kill leaves it whose last checkpoint is that of step `after` (0: none).

    Its diet is left out: what is in it later, this copy was given.
    """
    copy = folder / run.name
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("diet"))
    for step in saved_steps(copy):
        if step > after:
            for path in (copy / "checkpoints").glob(f"step_{step:08d}.*"):
                path.unlink()
    if after:
        (copy / SAVED_STEPS_FILE).write_text(json.dumps({"step": after}))
    else:
        (copy / SAVED_STEPS_FILE).unlink()
    return copy


def contents(folder: Path) -> dict[str, str]:
    """sha256 of every file."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
