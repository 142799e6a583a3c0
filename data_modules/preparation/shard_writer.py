"""Token ids to numbered .npy files, with everything that source.json says of them."""

import hashlib
from array import array
from pathlib import Path
from typing import Any

import numpy as np


class ShardWriter:
    """Writes `tokens_0000.npy`, … (and `mask_0000.npy`, … for a masked source) of one split into one folder."""

    def __init__(self, folder: Path, *, vocab_size: int, masked: bool, shard_tokens: int) -> None:
        folder.mkdir(parents=True)
        self.counts = np.zeros(vocab_size, dtype=np.int64)
        """How often each id occurs among the loss-bearing tokens."""
        self._folder = folder
        self._dtype = np.dtype(np.uint16 if vocab_size <= 2**16 else np.uint32)
        self._masked = masked
        self._shard_tokens = shard_tokens
        self._ids = array("I")
        self._mask = bytearray()
        self._shards: list[dict[str, Any]] = []
        self._totals = {"documents": 0, "tokens": 0, "loss_bearing_tokens": 0, "bytes": 0}

    def add(self, ids: list[int], mask: list[int] | None, *, n_bytes: int) -> None:
        """Append one document; `mask` None means that all its tokens bear loss."""
        self._ids.extend(ids)
        self._mask.extend(mask if mask is not None else b"\1" * len(ids))
        self._totals["documents"] += 1
        self._totals["bytes"] += n_bytes
        if len(self._ids) >= self._shard_tokens:
            self._write_shard()

    def close(self) -> dict[str, Any]:
        """Write what is left and return the split's entry in source.json."""
        if self._ids:
            self._write_shard()
        return {**self._totals, "dtype": self._dtype.name, "masked": self._masked, "shards": self._shards}

    def _write_shard(self) -> None:
        number = len(self._shards)
        ids = np.array(self._ids, dtype=self._dtype)
        mask = np.frombuffer(bytes(self._mask), dtype=np.bool_)
        files = {f"tokens_{number:04d}.npy": ids} | ({f"mask_{number:04d}.npy": mask} if self._masked else {})
        hashes = {}
        for file_name, values in files.items():
            np.save(self._folder / file_name, values)
            hashes[file_name] = hashlib.sha256((self._folder / file_name).read_bytes()).hexdigest()
        self._shards.append({"tokens": len(ids), "sha256": hashes})
        self.counts += np.bincount(ids[mask], minlength=len(self.counts))
        self._totals["tokens"] += len(ids)
        self._totals["loss_bearing_tokens"] += int(mask.sum())
        self._ids, self._mask = array("I"), bytearray()
