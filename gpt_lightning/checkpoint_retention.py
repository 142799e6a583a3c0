"""A run's folder of checkpoints: which of them to go on from, and which of them stay.

checkpoints/step_00000200.pt .json     the newest few: see gpt_lightning/verified_checkpoint.py
checkpoints/best/                      that of the least mean validation loss, if it is asked for
checkpoints/permanent/                 those of every so many steps, if they are: no number of newer ones removes them
checkpoints/given_up/                  those that came after one that `resume` named
checkpoints/step_00000100.damaged      one that did not agree with its manifest
"""

import os
import re
import shutil
from pathlib import Path
from typing import NamedTuple

from gpt_lightning.durable_files import make_folder, sync_file, sync_folder
from gpt_lightning.verified_checkpoint import is_valid_checkpoint

_UNPRUNED = ("best", "permanent")

SAVED_STEPS_FILE = "saved.json"  # in the run directory: after which step a checkpoint was last saved


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint of `step` completed steps lies."""
    return folder / f"step_{step:08d}.pt"


def checkpoint_step(path: Path) -> int:
    """The completed steps that a checkpoint's name says."""
    return int(path.stem.removeprefix("step_"))


def list_checkpoints(folder: Path) -> list[Path]:
    """All of a run's checkpoints, verified or not, the newest first; of equal ones that which lies in `folder` itself."""
    found = [path for place in (".", *_UNPRUNED) for path in _files(folder / place, "pt")]
    return sorted(found, key=checkpoint_step, reverse=True)


def _files(folder: Path, ending: str) -> list[Path]:
    """Those that a run has saved, the newest last; a copy that somebody has named otherwise is not ours to count or remove."""
    saved = [path for path in folder.glob(f"step_*.{ending}") if re.fullmatch(r"step_\d{8,}", path.stem)]
    return sorted(saved, key=checkpoint_step)


class CheckpointSearch(NamedTuple):
    """What a folder of checkpoints has."""

    newest_valid: Path | None
    damaged: list[Path]  # newer ones, which do not agree with their manifests


def search_checkpoints(folder: Path) -> CheckpointSearch:
    """The newest checkpoint of `folder` that agrees with its manifest, and those that had to be passed over."""
    damaged: list[Path] = []
    for path in list_checkpoints(folder):
        if is_valid_checkpoint(path):
            return CheckpointSearch(path, damaged)
        damaged.append(path)
    return CheckpointSearch(None, damaged)


def newest_valid_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint of `folder` that agrees with its manifest; None if none does."""
    return search_checkpoints(folder).newest_valid


def prune_checkpoints(folder: Path, *, keep: int) -> None:
    """Remove all but the `keep` newest checkpoints, and what interrupted writes have left behind."""
    for path in _files(folder, "pt")[:-keep]:
        remove_checkpoint(path)
    remove_partial_files(folder)


def remove_partial_files(folder: Path) -> None:
    """Remove what interrupted writes have left behind."""
    for place in (folder, *(folder / name for name in _UNPRUNED)):
        orphans = (path for path in _files(place, "json") if not path.with_suffix(".pt").exists())
        for path in [*place.glob(".*.tmp"), *orphans]:
            path.unlink()


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint; a kill in between leaves a manifest, which says that there was one and is swept."""
    path.unlink()
    path.with_suffix(".json").unlink(missing_ok=True)


def keep_only(path: Path) -> None:
    """Remove the other checkpoints of a folder."""
    for other in _files(path.parent, "pt"):
        if other != path:
            remove_checkpoint(other)


def set_aside_invalid(path: Path) -> None:
    """Take a damaged checkpoint out of the way, and leave it to be looked at."""
    manifest = path.with_suffix(".json")
    earlier = len([*path.parent.glob(f"{path.stem}.damaged"), *path.parent.glob(f"{path.stem}_again*[0-9].damaged")])
    name = f"{path.stem}_again{earlier}" if earlier else path.stem  # of the same step there was one already
    path.replace(path.with_name(f"{name}.damaged"))
    if manifest.exists():
        manifest.replace(manifest.with_name(f"{name}.json.damaged"))


def mark_superseded(path: Path, folder: Path) -> None:
    """Take a checkpoint out of the way that is not to be gone on from any more."""
    make_folder(folder)
    manifest = path.with_suffix(".json")
    if manifest.exists():  # a copy first: a kill in between leaves the checkpoint whole in one place or the other
        shutil.copy(manifest, folder / manifest.name)
    path.replace(folder / path.name)
    manifest.unlink(missing_ok=True)


def copy_to_permanent(path: Path, folder: Path) -> None:
    """Let a checkpoint lie in another folder too, without a second copy where the file system knows links."""
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
