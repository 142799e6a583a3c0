"""Shards in the layouts of other projects, for the tests."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from data_modules import SourceShards
from data_modules.preparation import PreparationTarget, adopt_shards
from gpt_lightning.tokenizer import Tokenizer

EOT = 50256
IDS = np.array([1, 2, EOT] * 100, dtype=np.uint16)


def llmc(ids: np.ndarray) -> bytes:
    header = np.zeros(256, dtype=np.int32)
    header[:3] = 20240520, 1, len(ids)
    return header.tobytes() + ids.tobytes()


def adopt(path: Path, format: str, folder: Path, tokenizer: Tokenizer, val_fraction: float = 0.1) -> SourceShards:
    source = PreparationTarget(name="foreign", tokenizer=tokenizer, folder=folder, licence="test")
    adopt_shards(path, source, format=format, val_fraction=val_fraction)
    return SourceShards(folder)


def write(folder: Path, files: dict[str, np.ndarray], to_bytes: Callable[[np.ndarray], bytes]) -> Path:
    folder.mkdir()
    for name, ids in files.items():
        if name.endswith(".npy"):
            np.save(folder / name, ids)
        else:
            (folder / name).write_bytes(to_bytes(ids))
    return folder
