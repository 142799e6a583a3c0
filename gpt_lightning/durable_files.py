"""Atomic, durable writes: a file is complete or absent, and on disk before the next step."""

import json
import os
from pathlib import Path
from typing import IO, Any


def write_durably(path: Path, content: dict[str, Any]) -> None:
    """Replace a JSON file atomically, so that the new content survives a power failure."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(json.dumps(content, indent=2) + "\n")
        sync_file(file)
    temporary.replace(path)
    sync_folder(path.parent)


def sync_file(file: IO[Any]) -> None:
    """Flush a file and write it to disk (fsync)."""
    file.flush()
    os.fsync(file.fileno())


def make_folder(folder: Path) -> None:
    """Create a folder if it does not exist, and sync the parent, so that the new folder survives a power failure."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Write a folder's list of files to disk (fsync)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
