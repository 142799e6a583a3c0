"""Lightning plugin that writes checkpoints with manifests and verifies them when it reads them."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import torch
from lightning.fabric.plugins import CheckpointIO

from gpt_lightning.durable_files import make_folder, sync_file, sync_folder
from gpt_lightning.verified_checkpoint import read_checkpoint


class VerifiedCheckpointIO(CheckpointIO):
    """Read and write verified checkpoints (see gpt_lightning/verified_checkpoint.py).

    Lightning's own plugin stages files in $TMPDIR and can destroy the file that it replaces.
    """

    def __init__(self) -> None:
        self.failure: OSError | None = None
        """The error of the last save; None if it succeeded."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint and its manifest. If the disk is full or fails, store the error in `failure`.

        This method does not raise OSError: Lightning's ranks wait for each other after a save, so the other ranks would
        hang.
        """
        path = Path(path)
        temporary = path.with_name(f".{path.name}.tmp")
        staged_manifest = path.with_name(f".{path.stem}.json.tmp")
        self.failure = None
        try:
            make_folder(path.parent)
            with temporary.open("wb") as file:
                hashing = _HashingFile(file)
                hashing.save(checkpoint)
                sync_file(file)
            manifest = {
                "file": path.name,
                "sha256": hashing.sha256,
                "size": hashing.size,
                "step": checkpoint["global_step"],
            }
            with staged_manifest.open("w") as text_file:
                json.dump(manifest, text_file, indent=2)
                sync_file(text_file)
            staged_manifest.replace(path.with_suffix(".json"))
            temporary.replace(path)
            sync_folder(path.parent)
        except OSError as error:
            self.failure = error
            for leftover in (temporary, staged_manifest):
                with suppress(OSError):
                    leftover.unlink(missing_ok=True)

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return read_checkpoint(Path(path), map_location=map_location or "cpu")

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink()
        Path(path).with_suffix(".json").unlink()


class _HashingFile:
    """Count and hash what torch.save writes, so that the file does not have to be read again."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._failure: OSError | None = None
        self.size = 0

    def save(self, checkpoint: Mapping[str, Any]) -> None:
        """Call torch.save. If a write fails, raise the original OSError, which torch.save hides.

        Raises:
            OSError: The checkpoint cannot be written.
        """
        try:
            torch.save(checkpoint, self)  # type: ignore[arg-type]  # torch.save only calls write and flush
        except RuntimeError as error:
            raise self._failure or error from error

    def write(self, content: bytes) -> int:
        self._digest.update(content)
        self.size += len(content)
        try:
            return self._file.write(content)
        except OSError as error:
            self._failure = self._failure or error
            raise

    def flush(self) -> None:
        self._file.flush()

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()
