"""Prepare one part of a source: some of its input files, as shards, in a folder where interrupted work can be
continued.

    <part>/part.json               request, progress and content; "done" when the part is complete
    <part>/{train,val}/            shards; the name of an incomplete shard ends in .unfinished
    <part>/seen.sqlite             digests of the documents
    <part>/lock, owner             held by the process that works on the part

Every few seconds everything is written to disk and part.json is replaced (a commit). After an interruption, everything
written since the last commit is removed, so the bytes are the same however often the work is interrupted.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from data_modules.corpora.corpus import Chunk, Corpus
from data_modules.preparation.duplicate_detection import SeenDocuments
from data_modules.preparation.parallel_tokenization import MIXED, ChunkEncoder, EncodedChunk, encode_in_order
from data_modules.preparation.preparation_settings import PreparationSettings
from data_modules.preparation.progress import PreparationProgress
from data_modules.preparation.shard_writer import ShardWriter
from data_modules.preparation.validation_split import SPLITS
from gpt_lightning.durable_files import write_durably
from gpt_lightning.tokenizer import Tokenizer

COMMIT_SECONDS = 2.0
BAD_SHARE = 0.001  # maximum share of bad records
BAD_NAMED = 10  # maximum number of bad records listed in source.json
_MANY_RECORDS = 100_000


@dataclass(frozen=True, kw_only=True)
class PartFiles:
    """The input files of one part."""

    corpus: Corpus
    """The corpus with the files of all parts."""
    numbers: range
    """The indices of this part's files in `corpus.files`, in order."""
    group_of: Sequence[int]
    """The group of each of the corpus's files, numbered from 0. A shard never contains documents of two groups."""

    @property
    def are_all(self) -> bool:
        """Whether the part is the whole corpus."""
        return len(self.numbers) == len(self.corpus.files)

    def chunks(self, *, file: int, record: int) -> Iterator[tuple[int, Chunk]]:
        """Yield (index of a file, chunk of this file), starting at a record of a file."""
        for number in range(file, self.numbers.stop):
            for chunk in self.corpus.chunks(number, record if number == file else 0):
                yield number, chunk

    def share_read(self, file: int, chunk: Chunk) -> float | None:
        """Return the share, 0 to 1, of the part's bytes up to the end of a chunk; None if sizes are unknown."""
        sizes = [self.corpus.files[number].n_bytes for number in self.numbers]
        return (sum(sizes[: file - self.numbers.start]) + chunk.read) / sum(sizes) if sum(sizes) else None


class ResumablePart:
    """The preparation of one part.

    Args:
        folder: The part's folder.
        files: The part's input files.
        tokenizer: The tokenizer for the shards.
        recipe: How documents become shards.
        request: All settings that determine the bytes. A part that was started with other settings is refused.

    Raises:
        ValueError: The folder contains a part with another request.
    """

    def __init__(
        self,
        folder: Path,
        files: PartFiles,
        *,
        tokenizer: Tokenizer,
        recipe: PreparationSettings,
        request: dict[str, Any],
    ) -> None:
        self.folder = folder
        self._files = files
        self._tokenizer = tokenizer
        self._recipe = recipe
        self._record = folder / "part.json"
        self.state: dict[str, Any] = {
            "request": request,
            "done": False,
            "file": files.numbers.start,
            "record": 0,
            "masked": None,
            "documents": 0,
            "records": 0,
            "duplicates": 0,
            "bad": {"count": 0, "first": []},
            "splits": {split: None for split in SPLITS},
        }
        if self.is_begun:
            state = json.loads(self._record.read_text(encoding="utf-8"))
            _refuse_other_request(state["request"], json.loads(json.dumps(request)), folder)
            self.state = state
            self._note_bad(state["bad"]["first"][:1] if recipe.on_bad_record == "error" else [])

    @property
    def is_begun(self) -> bool:
        """Whether anything is committed."""
        return self._record.is_file()

    def prepare(self, *, workers: int, progress: Callable[[PreparationProgress], None]) -> dict[str, Any]:
        """Prepare what is missing, and return the final state.

        Raises:
            ValueError: A record is bad, or a file cannot be read.
            OSError: The disk is full or fails; what was committed is kept.
        """
        if self.state["done"]:
            return self.state
        state, group_of = self.state, self._files.group_of
        encoder = ChunkEncoder(self._files.corpus, self._tokenizer, self._recipe)
        with ExitStack() as opened:
            seen = opened.enter_context(closing(SeenDocuments(self.folder / "seen.sqlite", state["documents"])))
            writers = self._writers(opened) if state["masked"] is not None else {}
            remaining = self._files.chunks(file=state["file"], record=state["record"])
            encoded_chunks = encode_in_order(encoder, remaining, workers=workers)
            opened.enter_context(closing(encoded_chunks))
            committed = time.monotonic()
            for file, chunk, encoded in encoded_chunks:
                if group_of[file] != group_of[state["file"]]:
                    self._end_shards(writers)
                if len(encoded.lengths):
                    masked = encoded.mask is not None
                    if state["masked"] is None:
                        state["masked"] = masked
                        writers = self._writers(opened)
                    if state["masked"] != masked:
                        raise ValueError(MIXED)
                reached = self._take(encoded, writers, seen)
                state["file"], state["record"] = file, chunk.stop
                check_bad_share([state], at_least=_MANY_RECORDS)
                tokens = sum(writer.tokens for writer in writers.values())
                progress(PreparationProgress(state["documents"], tokens, self._share(file, chunk, tokens)))
                if reached:
                    break
                if time.monotonic() - committed > COMMIT_SECONDS:
                    self._commit(writers, seen)
                    committed = time.monotonic()
            # with several parts, only the join knows the share over all of them
            check_bad_share([state], at_least=0 if self._files.are_all else _MANY_RECORDS)
            self._end_shards(writers)
            state["done"] = True
            self._commit(writers, seen)
        return state

    def _take(self, encoded: EncodedChunk, writers: dict[str, ShardWriter], seen: SeenDocuments) -> bool:
        """Write the documents of a chunk. Returns whether limit_tokens is reached."""
        state, limit = self.state, self._recipe.limit_tokens
        tokens = sum(writer.tokens for writer in writers.values())
        keep = np.ones(len(encoded.lengths), dtype=np.bool_)
        pieces = 2 if self._recipe.split == "tail" else 1  # per document
        documents = 0
        reached = False
        for length, digest in zip(
            encoded.lengths.reshape(-1, pieces).sum(axis=1).tolist(), encoded.digests, strict=True
        ):
            if not seen.add(digest, state["documents"]):
                state["duplicates"] += 1
                keep[documents * pieces : (documents + 1) * pieces] = self._recipe.deduplicate is None
            tokens += length if keep[documents * pieces] else 0
            documents += 1
            state["documents"] += 1
            if limit is not None and tokens >= limit:
                reached = True
                break
        bad = [reason for before, reason in encoded.bad if not reached or before < documents]
        self._note_bad(bad)
        state["records"] += documents + len(bad)
        taken = documents * pieces
        lengths = encoded.lengths[:taken]
        for split, writer in writers.items():
            chosen = keep[:taken] & (encoded.for_val[:taken] == (split == "val"))
            if not chosen.any():
                continue
            of_tokens = np.repeat(chosen, lengths)
            ids, mask = encoded.ids[: len(of_tokens)][of_tokens], None
            if encoded.mask is not None:
                mask = encoded.mask[: len(of_tokens)][of_tokens]
            n_bytes = int(encoded.n_bytes[:taken][chosen].sum())
            chosen_lengths = lengths[chosen]
            if (
                self._recipe.split == "tail" and not writer.tokens
            ):  # the first document needs no end-of-text id before it
                ids, chosen_lengths = ids[1:], chosen_lengths - (np.arange(len(chosen_lengths)) == 0)
            writer.add(ids, mask, lengths=chosen_lengths, n_bytes=n_bytes)
        return reached

    def _note_bad(self, reasons: list[str]) -> None:
        if reasons and self._recipe.on_bad_record == "error":
            raise ValueError(f"{reasons[0]}. Set on_bad_record=skip to skip and count such records.")
        bad = self.state["bad"]
        bad["count"] += len(reasons)
        bad["first"] = [*bad["first"], *reasons][:BAD_NAMED]

    def _share(self, file: int, chunk: Chunk, tokens: int) -> float | None:
        shares = [tokens / self._recipe.limit_tokens] if self._recipe.limit_tokens else []
        if (read := self._files.share_read(file, chunk)) is not None:
            shares.append(read)
        return min(1.0, max(shares)) if shares else None

    def _writers(self, opened: ExitStack) -> dict[str, ShardWriter]:
        """Make a writer for each split; closing `opened` closes them."""
        writers = {}
        for split in SPLITS:
            writers[split] = ShardWriter(
                self.folder / split,
                dtype=np.dtype(np.uint16 if self._tokenizer.vocab_size <= 2**16 else np.uint32),
                masked=self.state["masked"],
                shard_tokens=self._recipe.shard_tokens,
                state=self.state["splits"][split],
            )
            opened.callback(writers[split].close)
        return writers

    @staticmethod
    def _end_shards(writers: dict[str, ShardWriter]) -> None:
        for writer in writers.values():
            writer.end_shard()

    def _commit(self, writers: dict[str, ShardWriter], seen: SeenDocuments) -> None:
        self.state["splits"] = {split: writer.commit() for split, writer in writers.items()} or self.state["splits"]
        seen.commit()
        write_durably(self._record, self.state)


def check_bad_share(states: Sequence[Mapping[str, Any]], *, at_least: int = 0) -> None:
    """Raise an error if the share of bad records in some parts is too large.

    Args:
        states: Content of each part's part.json.
        at_least: Assume at least this number of records, because later records may lower the share.

    Raises:
        ValueError: The share of bad records exceeds one in a thousand.
    """
    count, records = sum(state["bad"]["count"] for state in states), sum(state["records"] for state in states)
    if count > BAD_SHARE * max(records, at_least):
        first = list(chain.from_iterable(state["bad"]["first"] for state in states))[:3]
        raise ValueError(
            f"{count:,} of {records:,} records are bad, which is more than one in a thousand: repair the corpus, or "
            f"check that the source's fields name the right columns. The first: {'; '.join(first)}."
        )


def _refuse_other_request(then: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    for key in {**then, **now}:
        if then.get(key) != now.get(key):
            raise ValueError(
                f"{folder} was started with {key}={_short(then.get(key))}, and {key} is now {_short(now.get(key))}: "
                "set it back to continue, or delete the folder to start again."
            )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) < 200 else f"{text[:200]}…"
