"""Write token ids to numbered .npy files, in place, so that interrupted work can continue after the last commit."""

import io
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from data_modules.shards.shard_files import HEADER_BYTES
from data_modules.shards.shard_integrity import MIB, Checksums
from gpt_lightning.durable_files import sync_folder


class ShardWriter:
    """Write `tokens_0000.npy`, … (and `mask_0000.npy`, … for a masked source) of one split to a folder.

    Args:
        folder: Where to write.
        dtype: Type of the ids, uint16 or uint32.
        masked: Whether the source has masks.
        shard_tokens: A shard ends with the document that reaches this number of tokens.
        state: What `commit` returned; everything written after that commit is removed. None: start.
    """

    def __init__(
        self, folder: Path, *, dtype: np.dtype, masked: bool, shard_tokens: int, state: dict[str, Any] | None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._dtypes = {"tokens": dtype} | ({"mask": np.dtype(np.bool_)} if masked else {})
        self._shard_tokens = shard_tokens
        self._state = state or {"documents": 0, "bytes": 0, "shards": [], "open_tokens": 0}
        self._files: dict[str, io.BufferedRandom] = {}
        self._take_back()

    @property
    def tokens(self) -> int:
        """Number of tokens written so far."""
        return sum(shard["tokens"] for shard in self._state["shards"]) + int(self._state["open_tokens"])

    def add(self, ids: np.ndarray, mask: np.ndarray | None, *, lengths: np.ndarray, n_bytes: int) -> None:
        """Append documents.

        Args:
            ids: (tokens,) ids of the documents, concatenated.
            mask: (tokens,) bool, whether each token bears loss; None for a source without masks.
            lengths: (documents,) number of tokens of each document.
            n_bytes: Size of the documents' text in bytes.
        """
        self._state["documents"] += len(lengths)
        self._state["bytes"] += n_bytes
        ends = np.cumsum(lengths)
        start = 0
        while start < len(ids):
            room = self._shard_tokens - self._state["open_tokens"]
            last = np.searchsorted(ends, start + room)  # the document that reaches the shard's size
            stop = int(ends[last]) if last < len(ends) else len(ids)
            self._append("tokens", ids[start:stop])
            if mask is not None:
                self._append("mask", mask[start:stop])
            self._state["open_tokens"] += stop - start
            if last < len(ends):
                self.end_shard()
            start = stop

    def end_shard(self) -> None:
        """End the current shard, so that the next document starts a new file."""
        n_tokens = self._state["open_tokens"]
        if not n_tokens:
            return
        checksums: dict[str, dict[str, str]] = {}
        for kind, file in self._files.items():
            file.seek(0)
            header = {
                "descr": np.lib.format.dtype_to_descr(self._dtypes[kind]),
                "fortran_order": False,
                "shape": (n_tokens,),
            }
            np.lib.format.write_array_header_1_0(file, header)
            assert file.tell() == HEADER_BYTES
            self._sync(file)
            file.seek(0)
            path = self._path(kind)
            of_file = Checksums()
            while content := file.read(MIB):
                of_file.update(content)
            for key, value in of_file.values.items():
                checksums.setdefault(key, {})[path.name] = value
            file.close()
            self._unfinished(kind).replace(path)
        self._files.clear()
        self._state["shards"].append({"tokens": n_tokens, **checksums})
        self._state["open_tokens"] = 0

    def commit(self) -> dict[str, Any]:
        """Write everything so far to disk. Returns the state from which another writer can continue."""
        for file in self._files.values():
            self._sync(file)
        sync_folder(self._folder)
        return {**self._state, "shards": list(self._state["shards"])}

    def close(self) -> None:
        """Close the files; what was not committed is lost."""
        for file in self._files.values():
            with suppress(OSError):  # buffered data does not fit on the disk
                file.close()
        self._files.clear()

    def _append(self, kind: str, values: np.ndarray) -> None:
        if kind not in self._files:
            file = self._unfinished(kind).open("w+b")
            file.write(bytes(HEADER_BYTES))
            self._files[kind] = file
        self._files[kind].write(values.astype(self._dtypes[kind], copy=False).tobytes())

    def _take_back(self) -> None:
        """Restore the folder to the last commit: truncate the open shard and remove later ones."""
        finished = len(self._state["shards"])
        for kind, dtype in self._dtypes.items():
            path = self._path(kind)
            if path.exists():  # this shard was open at the commit and has been completed since
                path.replace(self._unfinished(kind))
            if self._state["open_tokens"]:
                file = self._unfinished(kind).open("r+b")
                file.truncate(HEADER_BYTES + self._state["open_tokens"] * dtype.itemsize)
                file.seek(0, os.SEEK_END)
                self._files[kind] = file
        for path in self._folder.iterdir():
            number = int(path.name.split("_")[1].split(".")[0])
            if number > finished or (number == finished and not self._files):
                path.unlink()

    def _path(self, kind: str) -> Path:
        return self._folder / f"{kind}_{len(self._state['shards']):04d}.npy"

    def _unfinished(self, kind: str) -> Path:
        return self._path(kind).with_suffix(".unfinished")

    @staticmethod
    def _sync(file: io.BufferedRandom) -> None:
        file.flush()
        os.fsync(file.fileno())
