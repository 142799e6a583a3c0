"""Checkpoints that are whole or absent, and are read only when they verify.

    checkpoints/step_00000200.pt       tensors, numbers, strings: it loads with weights_only=True
    checkpoints/step_00000200.json     its manifest: sha256, size, step

Both are staged in the folder they end in. The rename of the .pt, after its manifest is in place, is the moment at which the
checkpoint exists; a crash before it leaves at most hidden leftovers and a manifest without its file.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from lightning.fabric.plugins import CheckpointIO
from torch import Tensor


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint of `step` completed steps lies."""
    return folder / f"step_{step:08d}.pt"


def newest_valid_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint of `folder` that agrees with its manifest; None if none does."""
    return next((path for path in sorted(folder.glob("step_*.pt"), reverse=True) if _verifies(path)), None)


def prune(folder: Path, *, keep: int) -> None:
    """Remove all but the `keep` newest checkpoints, and what interrupted writes have left behind."""
    for path in sorted(folder.glob("step_*.pt"))[:-keep]:
        path.unlink()
    for path in [*folder.glob(".*.tmp"), *(m for m in folder.glob("step_*.json") if not m.with_suffix(".pt").exists())]:
        path.unlink()


def read_checkpoint(path: Path, *, map_location: Any = "cpu") -> dict[str, Any]:
    """What a checkpoint holds; no code in it can run.

    Raises:
        ValueError: there is no such file, or it disagrees with its manifest, or has none.
    """
    if not path.is_file():
        raise ValueError(f"there is no checkpoint {path}.")
    verify(path)
    return torch.load(path, map_location=map_location, weights_only=True)


def read_diet(path: Path) -> dict[str, Any]:
    """What decided the order of a run's tokens, from a checkpoint that was verified; see `MixedDataModule.identity`."""
    checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)  # the tensors stay on the disk
    diet: dict[str, Any] = checkpoint["diet"]
    return diet


def verify(path: Path) -> None:
    """Compare a checkpoint with its manifest.

    Raises:
        ValueError: they disagree, or there is no manifest.
    """
    manifest = path.with_suffix(".json")
    if not manifest.is_file():
        raise ValueError(f"{path} lacks its manifest {manifest.name}, against which it is verified: copy both.")
    if not _verifies(path):
        raise ValueError(f"{path} does not agree with its manifest {manifest.name}: use an older checkpoint.")


def fingerprint(weights: Mapping[str, Tensor]) -> str:
    """sha256 over names and bits."""
    digest = hashlib.sha256()
    for name, weight in weights.items():
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


class VerifiedCheckpointIO(CheckpointIO):
    """Lightning's door to the files above; Lightning's own stages in $TMPDIR and can destroy the file it replaces."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        with temporary.open("wb") as file:
            hashing = _HashingFile(file)
            torch.save(checkpoint, hashing)  # type: ignore[arg-type]  # all it needs of a file is write
            _sync(file)
        manifest = {
            "file": path.name,
            "sha256": hashing.sha256,
            "size": hashing.size,
            "step": checkpoint["global_step"],
        }
        staged_manifest = path.with_name(f".{path.stem}.json.tmp")
        with staged_manifest.open("w") as text_file:
            json.dump(manifest, text_file, indent=2)
            _sync(text_file)
        staged_manifest.replace(path.with_suffix(".json"))
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return read_checkpoint(Path(path), map_location=map_location or "cpu")

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink()
        Path(path).with_suffix(".json").unlink()


class _HashingFile:
    """Counts and hashes what torch.save writes, so that the file need not be read again."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.size = 0

    def write(self, content: bytes) -> int:
        self._digest.update(content)
        self.size += len(content)
        return self._file.write(content)

    def flush(self) -> None:
        self._file.flush()

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


def _sync(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _verifies(path: Path) -> bool:
    try:
        manifest = json.loads(path.with_suffix(".json").read_text())
        if path.stat().st_size != manifest["size"]:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == manifest["sha256"]
    except (OSError, ValueError, KeyError):
        return False
