"""Prepare one source: write the folder that training reads, from the source's documents."""

import platform
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path
from typing import Any

from data_modules.corpora.corpus import Corpus
from data_modules.corpora.foreign_shards import foreign_splits
from data_modules.preparation.join_parts import join_parts, unigram_loss
from data_modules.preparation.preparation_settings import PreparationSettings
from data_modules.preparation.preparation_target import PreparationTarget
from data_modules.preparation.progress import PreparationProgress
from data_modules.preparation.resumable_part import PartFiles, ResumablePart, check_bad_share
from data_modules.preparation.validation_split import SPLITS
from data_modules.shards.shard_files import read_source_json, with_checksum
from gpt_lightning.durable_files import write_durably
from gpt_lightning.file_locks import exclusive_lock

GROUP_MB = 64.0


def prepare_source(
    corpus: Corpus,
    source: PreparationTarget,
    recipe: PreparationSettings,
    *,
    workers: int = 1,
    progress: Callable[[PreparationProgress], None] = lambda progress: None,
) -> dict[str, Any]:
    """Tokenize a corpus into the source's folder, or continue an interrupted preparation.

    Returns:
        The content of source.json.

    Raises:
        ValueError: A record is bad, a file cannot be read, the source has fewer than two different documents, the
            source already exists, or another process works on it.
        OSError: The disk is full or fails. After any error, the same call continues where it stopped.
    """
    return PartitionedPreparation(corpus, source, recipe).prepare_all(workers=workers, progress=progress)


def adopt_shards(path: Path, source: PreparationTarget, *, format: str, val_fraction: float) -> dict[str, Any]:
    """Register another project's shards as a source, without moving or copying them.

    Args:
        path: The shards, or their folder.
        source: Name, folder and tokenizer of the new source.
        format: Format of the shards, by the name of the other project.
        val_fraction: Share of the tokens used for validation if no file name marks validation data.

    Returns:
        The content of source.json.

    Raises:
        ValueError: A file is damaged, has another format, or was made with another tokenizer.
    """
    entries, left_out, remarks = foreign_splits(path, format, source.tokenizer, val_fraction)
    origin: dict[str, Any] = {"path": str(path.resolve()), "format": format}
    if left_out:
        origin["left_out"] = [file.name for file in left_out]
    information = {
        **_common(source, origin),
        "remarks": remarks,
        "split": {
            "rule": "files with val in their names, or else the last documents",
            "val_fraction": val_fraction,
        },
        "splits": {split: entry for split, (entry, _) in entries.items()},
        "unigram_loss": unigram_loss(entries["train"][1], entries["val"][1]),
    }
    information = with_checksum(information)
    source.folder.mkdir(parents=True, exist_ok=True)
    write_durably(source.folder / "source.json", information)
    return information


class PartitionedPreparation:
    """A source whose input files are divided into parts, which can be prepared anywhere and joined.

    Args:
        corpus: The documents.
        source: Name, folder and tokenizer of the source.
        recipe: How documents become shards.
        of: Number of parts.
        group_mb: Input files are grouped until a group has at least this size in MB, on disk. Parts consist of whole
            groups, and a shard never contains documents of two groups, so the shards do not depend on the number of
            parts.
    """

    def __init__(
        self,
        corpus: Corpus,
        source: PreparationTarget,
        recipe: PreparationSettings,
        *,
        of: int = 1,
        group_mb: float = GROUP_MB,
    ) -> None:
        self.folder = source.folder
        self.of = of
        self._corpus = corpus
        self._source = source
        self._recipe = recipe
        self._group_mb = group_mb
        self._group_of = group_files([file.n_bytes for file in corpus.files], group_mb)
        self._work = source.folder.with_name(f".{source.folder.name}.unfinished")
        if of > 1 and recipe.limit_tokens is not None:
            raise ValueError(
                "limit_tokens is set: it must be all to prepare in parts, because a part does not know the tokens "
                "before it. Use limit_files=… instead."
            )
        if of > 1 and recipe.deduplicate is not None:
            raise ValueError(
                "deduplicate is exact: it must be null to prepare in parts, because it needs to see every document. "
                "Prepare the source in one part. (Without it, joined parts count their duplicates.)"
            )
        if of > 1 and recipe.split == "tail":
            raise ValueError("split is tail: it must be hash to prepare in parts. Prepare the source in one part.")

    def prepare(self, part: int, *, workers: int, progress: Callable[[PreparationProgress], None]) -> None:
        """Prepare one part, numbered from 0, or continue its preparation."""
        with self._in_order():
            self._prepare(part, workers=workers, progress=progress)

    def join(self) -> dict[str, Any]:
        """Join the parts to the source.

        Returns:
            The content of source.json.

        Raises:
            ValueError: A part is missing or incomplete, or there are too few documents for a validation split.
        """
        with self._in_order(), exclusive_lock(self._work):
            return self._join()

    def prepare_all(self, *, workers: int, progress: Callable[[PreparationProgress], None]) -> dict[str, Any]:
        """Prepare all parts in this process and join them. Returns the content of source.json."""
        with self._in_order(), exclusive_lock(self._work):
            for number in range(self.of):
                self._prepare(number, workers=workers, progress=progress)
            return self._join()

    def _prepare(self, number: int, *, workers: int, progress: Callable[[PreparationProgress], None]) -> None:
        folder = self._folder_of(number)
        with exclusive_lock(folder):
            part = self._part(number)
            try:
                part.prepare(workers=workers, progress=progress)
            except BaseException:
                if not part.is_begun:
                    shutil.rmtree(folder, ignore_errors=True)
                raise

    @contextmanager
    def _in_order(self) -> Iterator[None]:
        """Refuse to prepare what already exists. If a failure occurs before the first commit, leave nothing behind."""
        if self.folder.is_dir() and not self._work.is_dir():
            raise ValueError(f"{self.folder} already exists: delete it to prepare it again.")
        others = sorted({f.name for f in self._work.glob("*_of_*") if not f.name.endswith(f"_of_{self.of}")})
        if others and not (self.folder / "source.json").is_file():
            raise ValueError(
                f"{self._work} has parts of another division ({', '.join(others)}): join them with mode=join, or "
                "delete it."
            )
        try:
            yield
        except OSError as error:
            if not any(self._work.glob("*/part.json")):
                raise
            raise OSError(
                f"{error}. What was prepared so far is kept in {self._work}, and the same command continues from there."
            ) from error
        finally:
            with suppress(OSError):
                self._work.rmdir()

    def _part(self, number: int) -> ResumablePart:
        files = [file for file, group in enumerate(self._group_of) if self._part_of(group) == number]
        return ResumablePart(
            self._folder_of(number),
            PartFiles(
                corpus=self._corpus,
                numbers=range(files[0], files[-1] + 1) if files else range(0),
                group_of=self._group_of,
            ),
            tokenizer=self._source.tokenizer,
            recipe=self._recipe,
            request=self._request(files),
        )

    def _part_of(self, group: int) -> int:
        """Return the part of a group. Parts are consecutive groups, as equal in number as possible."""
        return group * self.of // (self._group_of[-1] + 1)

    def _folder_of(self, part: int) -> Path:
        return self._work / f"{part}_of_{self.of}"

    def _request(self, files: list[int]) -> dict[str, Any]:
        """Return everything that determines the bytes of a part."""
        return {
            "source": self._source.name,
            "tokenizer": self._source.tokenizer.fingerprint,
            "origin": self._corpus.origin,
            "group_mb": self._group_mb,
            "files": [[self._corpus.files[n].name, self._corpus.files[n].n_bytes] for n in files],
            **{key: value for key, value in asdict(self._recipe).items() if key != "on_bad_record"},
        }

    def _join(self) -> dict[str, Any]:
        parts = [self._part(number) for number in range(self.of)]
        if (self.folder / "source.json").is_file():  # interrupted after joining, before the parts were removed
            shutil.rmtree(self._work)
            return read_source_json(self.folder)
        missing = [f"{n}/{self.of}" for n, part in enumerate(parts) if not part.state["done"]]
        if missing:
            raise ValueError(
                f"{self._source.name} cannot be joined: part {', '.join(missing)} "
                f"{'is' if len(missing) == 1 else 'are'} missing or incomplete. Run "
                + ", ".join(f"part={part}" for part in missing)
                + " first."
            )
        states = [part.state for part in parts]
        check_bad_share(states)
        documents = [
            sum(state["splits"][split]["documents"] for state in states if state["splits"][split]) for split in SPLITS
        ]
        if not all(documents):
            shutil.rmtree(self._work)
            raise ValueError(
                f"source {self._source.name} has too few documents: it must have at least two different ones, one of "
                "them for validation."
            )
        rules = {
            "hash": "blake2b of the document's text, and the first document",
            "tail": "the last characters of each document",
        }
        information = {
            **_common(self._source, self._corpus.origin),
            "split": {"rule": rules[self._recipe.split], "val_fraction": self._recipe.val_fraction},
            "request": asdict(self._recipe),
            "files": self._files_read(states),
        }
        return join_parts(states, [part.folder for part in parts], self.folder, information=information)

    def _files_read(self, states: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return name and size of the files that were read; a token limit may end reading before the last ones."""
        last = len(self._corpus.files) - 1 if self._recipe.limit_tokens is None else states[0]["file"]
        return [{"name": f.name, "bytes": f.n_bytes} for f in self._corpus.files[: last + 1] if f.n_bytes]


def group_files(sizes: list[int], group_mb: float) -> list[int]:
    """Return the group of each file. A group ends with the file that makes the group at least `group_mb` megabytes
    large.
    """
    filled = list(accumulate(sizes, lambda total, size: (total if total < group_mb * 1e6 else 0) + size))
    ends = [total >= group_mb * 1e6 for total in filled]
    return [0, *accumulate(ends)][: len(sizes)]


def _common(source: PreparationTarget, origin: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of source.json that every source has."""
    tokenizer = source.tokenizer
    return {
        "source": source.name,
        "tokenizer": {
            "name": tokenizer.name,
            "fingerprint": tokenizer.fingerprint,
            "vocab_size": tokenizer.vocab_size,
            "eot_id": tokenizer.eot_id,
        },
        "origin": dict(origin),
        "licence": source.licence,
        "versions": {"python": platform.python_version()}
        | {package: version(package) for package in ("numpy", "tiktoken", "tokenizers", "datasets", "pyarrow")},
    }
