"""The checkpoint folder of a run: which checkpoint to resume from, and which checkpoints to keep.

checkpoints/step_00000200.pt .json     the newest few: see gpt_lightning/verified_checkpoint.py
checkpoints/best/                      the checkpoint with the lowest mean validation loss, if enabled
checkpoints/permanent/                 one every n steps, if enabled; these are never pruned
checkpoints/given_up/                  superseded: checkpoints after the step that `resume` chose
checkpoints/step_00000100.damaged      a checkpoint that did not match its manifest
"""

import os
import re
import shutil
from pathlib import Path
from typing import NamedTuple

from gpt_lightning.durable_files import make_folder, sync_file, sync_folder
from gpt_lightning.verified_checkpoint import is_valid_checkpoint

_UNPRUNED = ("best", "permanent")

SAVED_STEPS_FILE = "saved.json"  # in the run directory: the step of the last saved checkpoint


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return the path of the checkpoint after `step` completed steps."""
    return folder / f"step_{step:08d}.pt"


def checkpoint_step(path: Path) -> int:
    """Return the number of completed steps that a checkpoint's file name states."""
    return int(path.stem.removeprefix("step_"))


def list_checkpoints(folder: Path) -> list[Path]:
    """List all checkpoints of a run, valid or not, newest first. For equal steps, the checkpoint in `folder` itself
    comes first.
    """
    found = [path for place in (".", *_UNPRUNED) for path in _files(folder / place, "pt")]
    return sorted(found, key=checkpoint_step, reverse=True)


def _files(folder: Path, ending: str) -> list[Path]:
    """List the checkpoints that the run saved, oldest first. Copies under other names are ignored and never removed."""
    saved = [path for path in folder.glob(f"step_*.{ending}") if re.fullmatch(r"step_\d{8,}", path.stem)]
    return sorted(saved, key=checkpoint_step)


class CheckpointSearch(NamedTuple):
    """Result of `search_checkpoints`."""

    newest_valid: Path | None
    damaged: list[Path]  # newer than `newest_valid`; they do not match their manifests


def search_checkpoints(folder: Path) -> CheckpointSearch:
    """Find the newest checkpoint in `folder` that matches its manifest, and all newer, damaged checkpoints."""
    damaged: list[Path] = []
    for path in list_checkpoints(folder):
        if is_valid_checkpoint(path):
            return CheckpointSearch(path, damaged)
        damaged.append(path)
    return CheckpointSearch(None, damaged)


def newest_valid_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint in `folder` that matches its manifest; None if there is none."""
    return search_checkpoints(folder).newest_valid


def prune_checkpoints(folder: Path, *, keep: int) -> None:
    """Remove all but the `keep` newest checkpoints, and the leftovers of interrupted writes."""
    for path in _files(folder, "pt")[:-keep]:
        remove_checkpoint(path)
    remove_partial_files(folder)


def remove_partial_files(folder: Path) -> None:
    """Remove the leftovers of interrupted writes: temporary files, and manifests without a checkpoint."""
    for place in (folder, *(folder / name for name in _UNPRUNED)):
        orphans = (path for path in _files(place, "json") if not path.with_suffix(".pt").exists())
        for path in [*place.glob(".*.tmp"), *orphans]:
            path.unlink()


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint, then its manifest. If killed in between, the next cleanup removes the manifest."""
    path.unlink()
    path.with_suffix(".json").unlink(missing_ok=True)


def keep_only(path: Path) -> None:
    """Remove all other checkpoints in the folder of `path`."""
    for other in _files(path.parent, "pt"):
        if other != path:
            remove_checkpoint(other)


def set_aside_invalid(path: Path) -> None:
    """Rename a damaged checkpoint to *.damaged, so that it is not used but can be inspected."""
    manifest = path.with_suffix(".json")
    earlier = len([*path.parent.glob(f"{path.stem}.damaged"), *path.parent.glob(f"{path.stem}_again*[0-9].damaged")])
    name = f"{path.stem}_again{earlier}" if earlier else path.stem  # a damaged one of the same step exists
    path.replace(path.with_name(f"{name}.damaged"))
    if manifest.exists():
        manifest.replace(manifest.with_name(f"{name}.json.damaged"))


def mark_superseded(path: Path, folder: Path) -> None:
    """Move a checkpoint that must no longer be resumed from, with its manifest, to `folder`."""
    make_folder(folder)
    manifest = path.with_suffix(".json")
    if manifest.exists():  # copy first: a kill in between leaves a complete checkpoint in one of the two folders
        shutil.copy(manifest, folder / manifest.name)
    path.replace(folder / path.name)
    manifest.unlink(missing_ok=True)


def copy_to_permanent(path: Path, folder: Path) -> None:
    """Add a checkpoint to a second folder: as a hard link if the file system supports it, otherwise as a copy."""
    make_folder(folder)
    for source in (path.with_suffix(".json"), path):
        if (folder / source.name).exists() and (folder / source.name).samefile(source):
            continue
        temporary = folder / f".{source.name}.tmp"
        temporary.unlink(missing_ok=True)
        try:
            os.link(source, temporary)
        except OSError:
            with temporary.open("wb") as copy, source.open("rb") as file:
                shutil.copyfileobj(file, copy)
                sync_file(copy)
        temporary.replace(folder / source.name)
    sync_folder(folder)
