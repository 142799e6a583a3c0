"""Prepared sources, memory-mapped.

    data/<tokenizer>/<source>/source.json
    data/<tokenizer>/<source>/{train,val}/tokens_0000.npy …      1-D ids, each document followed by the end-of-text id
    data/<tokenizer>/<source>/{train,val}/mask_0000.npy …        only for masked sources: whether the token bears loss

The shards of a split form one stream of tokens, which data_modules/shards/cut_into_sequences.py cuts into sequences. The
inputs of a sequence are the tokens before its targets; the very first token is predicted from end-of-text. Shards made
by other projects are elsewhere, and source.json says where. data_modules/shards/shard_files.py describes source.json and the
checksums.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from data_modules.shards.cut_into_sequences import sequence_borders
from data_modules.shards.gather_windows import ConcatenatedArrays
from data_modules.shards.shard_files import ShardFile, files_of_source, files_of_split, read_source_json, unlisted_files
from data_modules.shards.shard_integrity import damage_message, find_source_damage


class TokenStream:
    """The shards of one split as one long array. Each shard exists and has the length that source.json states."""

    def __init__(self, folder: Path, entry: dict[str, Any], *, eot_id: int) -> None:
        self._made_of = partial(TokenStream, folder, entry, eot_id=eot_id)
        self.masked: bool = entry["masked"]
        self._eot_id = eot_id
        files = list(files_of_split(folder, entry))
        tokens = [file.open() for file in files if not file.masks]
        masks = [file.open() for file in files if file.masks]
        self._n_tokens = sum(map(len, tokens))
        self.ids = ConcatenatedArrays([np.array([eot_id], dtype=tokens[0].dtype if tokens else np.uint16), *tokens])
        """One end-of-text id followed by the stream's ids; position p of the stream has index p + 1."""
        self.mask = ConcatenatedArrays(masks if self.masked else [np.broadcast_to(np.True_, self._n_tokens)])
        """Whether each token of the stream bears loss."""

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        """Reopen the shards in the worker; pickling would copy their content."""
        return self._made_of, ()

    def __len__(self) -> int:
        return self._n_tokens

    def n_sequences(self, max_seq_len: int) -> int:
        """Return the number of training sequences."""
        return len(self.sequences(max_seq_len, whole=True)) - 1 if self.masked else len(self) // max_seq_len

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return ids `start` to `stop` of the stream; position -1 is an end-of-text id before the first document."""
        return self.ids.read(start + 1, stop + 1)

    def read_mask(self, start: int, stop: int) -> np.ndarray:
        """Return whether each of the tokens `start` to `stop` bears loss."""
        return self.mask.read(start, stop)

    def loss_bearing(self, borders: np.ndarray) -> np.ndarray:
        """Return the number of loss-bearing targets per sequence: borders (n + 1,) -> (n,) int64. Reads all masks."""
        if not self.masked:
            return np.diff(borders)
        sums = np.concatenate([[0], np.cumsum(np.concatenate(self.mask.parts), dtype=np.int64)])
        counts: np.ndarray = sums[borders[1:]] - sums[borders[:-1]]
        return counts

    @cached_property
    def document_ends(self) -> np.ndarray:
        """Positions after each end-of-text id, (documents,) int64. Reads the whole stream."""
        shards = zip(self.ids.starts[1:-1], self.ids.parts[1:], strict=True)
        ends = [np.flatnonzero(ids == self._eot_id) + start for start, ids in shards]
        return np.concatenate([np.zeros(0, dtype=np.int64), *ends])

    def locate(self, position: int) -> tuple[int, int]:
        """Return (document, offset in the document) of a position of the stream."""
        document = int(np.searchsorted(self.document_ends, position, side="right"))
        return document, position - (int(self.document_ends[document - 1]) if document else 0)

    def sequences(self, max_seq_len: int, *, whole: bool) -> np.ndarray:
        """Return the borders of the stream's sequences, see `sequence_borders`."""
        ends = self.document_ends.tolist() if self.masked else None
        return sequence_borders(len(self), max_seq_len, document_ends=ends, whole=whole)


class SourceShards:
    """One prepared source: its source.json and the token streams of its two splits.

    Raises:
        ValueError: The folder is not a prepared source, its source.json is damaged, or a shard is missing or
            has a different length than source.json states.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.information = read_source_json(folder)
        if misfits := [misfit for file in files_of_source(folder, self.information) if (misfit := file.misfit())]:
            unlisted = [f"{path} is not in source.json" for path in unlisted_files(folder, self.information)]
            raise ValueError(f"{damage_message(folder, misfits + unlisted)}.")
        self.states = {file: file.state for file in files_of_source(folder, self.information)}
        """File -> its `ShardFile.state` before anything was read from it."""
        self.name: str = self.information["source"]
        eot_id = self.information["tokenizer"]["eot_id"]
        self.train, self.val = (
            TokenStream(folder / split, self.information["splits"][split], eot_id=eot_id) for split in ("train", "val")
        )

    @property
    def states_by_name(self) -> dict[str, str]:
        """`ShardFile.state` of each file, by its path relative to the source's folder, so that the folder can be moved."""
        return {self._name_of(file): state for file, state in self.states.items()}

    def touched(self) -> list[ShardFile]:
        """Return the files that were replaced or written to since they were opened."""
        return [file for file, state in self.states.items() if file.state != state]

    def changed(self) -> list[str]:
        """Return a clause for each touched file whose content no longer matches source.json.

        If there is none, the files count as unchanged until they are touched again.
        """
        touched = {file: file.state for file in self.touched()}  # before the files are read
        found = find_source_damage([*touched], self.information, with_sha256=False)
        if not found:
            self.states |= touched
        return found

    def changed_since(self, states: Mapping[str, str]) -> list[str]:
        """Return the same clauses for files that have changed since they had the given states, by file name."""
        names = {file: self._name_of(file) for file in self.states}
        touched = [file for file, name in names.items() if states.get(name, self.states[file]) != self.states[file]]
        return find_source_damage(touched, self.information, with_sha256=False)

    def _name_of(self, file: ShardFile) -> str:
        inside = file.path.is_relative_to(self.folder)
        return (file.path.relative_to(self.folder) if inside else file.path).as_posix()

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the tokenizer and every shard; equal fingerprints mean equal tokens."""
        hashes = [shard["sha256"] for entry in self.information["splits"].values() for shard in entry["shards"]]
        content = json.dumps([self.information["tokenizer"]["fingerprint"], hashes], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()
