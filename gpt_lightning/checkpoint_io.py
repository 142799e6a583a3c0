"""Lightning's plugin that writes checkpoints with their manifests, and reads them if they verify."""

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
    """Lightning's door to the files above; Lightning's own stages in $TMPDIR and can destroy the file it replaces."""

    def __init__(self) -> None:
        self.failure: OSError | None = None
        """Why the last save failed; None: it did not."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint and its manifest; where that fails for want of space or a disk, `failure` says so.

        It does not raise: Lightning's ranks wait for each other after a save, and the others would wait for ever.
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
    """Counts and hashes what torch.save writes, so that the file need not be read again."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._failure: OSError | None = None
        self.size = 0

    def save(self, checkpoint: Mapping[str, Any]) -> None:
        """torch.save, whose own account of a failed write hides the reason.

        Raises:
            OSError: it cannot be written.
        """
        try:
            torch.save(checkpoint, self)  # type: ignore[arg-type]  # all it needs of a file is write
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
