"""Checkpoint files: whole, verified, pruned."""

import json
from pathlib import Path

import pytest
import torch

from gpt_lightning.checkpoint_folder import (
    checkpoint_path,
    newest_valid_checkpoint,
    prune_checkpoints,
    set_aside_invalid,
)
from gpt_lightning.checkpoint_io import VerifiedCheckpointIO
from gpt_lightning.verified_checkpoint import read_checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five checkpoints, of steps 10 to 50."""
    for step in range(10, 60, 10):
        content = {"global_step": step, "state_dict": {"weight": torch.full((300,), float(step))}}
        VerifiedCheckpointIO().save_checkpoint(content, checkpoint_path(tmp_path, step))
    return tmp_path


def test_a_manifest_says_what_the_file_is(folder: Path) -> None:
    path = checkpoint_path(folder, 50)
    manifest = json.loads(path.with_suffix(".json").read_text())
    assert manifest["step"] == 50
    assert manifest["file"] == path.name
    assert manifest["size"] == path.stat().st_size
    assert read_checkpoint(path)["state_dict"]["weight"][0] == 50
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_no_checkpoint(folder: Path, share: float) -> None:
    path = checkpoint_path(folder, 50)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert newest_valid_checkpoint(folder) == checkpoint_path(folder, 40)
    with pytest.raises(ValueError, match="does not match its manifest"):
        read_checkpoint(path)


def test_a_flipped_byte_or_a_missing_manifest_is_noticed(folder: Path) -> None:
    flipped = bytearray(checkpoint_path(folder, 50).read_bytes())
    flipped[len(flipped) // 2] ^= 1
    checkpoint_path(folder, 50).write_bytes(flipped)
    checkpoint_path(folder, 40).with_suffix(".json").unlink()
    assert newest_valid_checkpoint(folder) == checkpoint_path(folder, 30)
    with pytest.raises(ValueError, match=r"lacks its manifest step_00000040\.json"):
        read_checkpoint(checkpoint_path(folder, 40))


def test_pruning_goes_by_the_folder(folder: Path) -> None:
    (folder / ".step_00000060.pt.tmp").write_bytes(b"left over")
    prune_checkpoints(folder, keep=3)
    steps = [f"step_{step:08d}" for step in (30, 40, 50)]
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        f"{s}.{end}" for s in steps for end in ("pt", "json")
    )


def test_a_copy_with_a_name_of_its_own_is_neither_counted_nor_removed(folder: Path) -> None:
    own = folder / "step_00000001_before_the_change.pt"
    own.write_bytes(b"mine")
    prune_checkpoints(folder, keep=1)
    assert own.read_bytes() == b"mine"
    assert newest_valid_checkpoint(folder) in list(folder.glob("step_????????.pt"))
    assert len(list(folder.glob("step_????????.pt"))) == 1


def test_a_manifest_of_another_name_is_said_to_be_one(folder: Path) -> None:
    for end in ("pt", "json"):
        checkpoint_path(folder, 40).with_suffix(f".{end}").rename(folder / f"mine.{end}")
    with pytest.raises(ValueError, match=r"mine\.json was written for step_00000040\.pt: .* keep their original names"):
        read_checkpoint(folder / "mine.pt")


def test_what_was_set_aside_stays_when_its_step_rots_again(folder: Path) -> None:
    path = checkpoint_path(folder, 40)
    for content in (b"first", b"second", b"third"):
        path.write_bytes(content)
        set_aside_invalid(path)
    aside = sorted(folder.glob("step_00000040*.damaged"))
    assert {other.read_bytes() for other in aside if ".json" not in other.name} == {b"first", b"second", b"third"}


def test_code_in_a_file_never_runs(tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "marker",))

    path = checkpoint_path(tmp_path, 10)
    VerifiedCheckpointIO().save_checkpoint({"global_step": 10, "state_dict": Malicious()}, path)
    with pytest.raises(ValueError, match="which could execute code: it is not a gpt-lightning checkpoint"):
        read_checkpoint(path)
    assert not (tmp_path / "marker").exists()
