"""What a corpus yields, and how it yields it: piece by piece, so that a reader can go on where another stopped."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, Protocol

from gpt_lightning.tokenizer import Message

Document = str | list[Message]


class BadRecord(ValueError):
    """Why a record is no document; a value that stands in the record's place until somebody decides what to do."""


class UnreadableFile(ValueError):
    """Why a file cannot be read any further: where its next record begins is not known."""


class Chunk(NamedTuple):
    """Some records of one input file in a row, still as they lie there, small enough to be handed to a worker."""

    payload: Any
    first: int  # its first record's number in the file, from 0
    stop: int  # the number of the record after its last: where reading goes on
    read: int  # bytes of the file that were read so far


@dataclass(frozen=True)
class InputFile:
    """One of the files that a corpus is read from."""

    name: str
    n_bytes: int  # as it lies there, compressed or not; 0: not known


class Corpus(Protocol):
    """Documents in a fixed order, in files that can be read from any record on. It can be pickled: workers hold a copy."""

    files: list[InputFile]
    origin: dict[str, Any]
    """Where the text comes from, as source.json shall say it."""

    def chunks(self, file: int, first: int) -> Iterator[Chunk]:
        """The records of `files[file]` from number `first` on. Raises ValueError if the file cannot be read."""

    def documents(self, file: int, chunk: Chunk) -> Iterator[tuple[str, Document | BadRecord]]:
        """(where it stands, what it is) of each record of a chunk: all that costs time, done by workers."""


class DocumentCorpus:
    """A corpus of documents that a function gives anew, in the same order, at each call."""

    CHUNK = 256  # documents

    def __init__(
        self, documents: Callable[[], Iterable[Document | BadRecord]], *, origin: dict[str, Any] | None = None
    ) -> None:
        self._documents = documents
        self.origin = origin or {}
        self.files = [InputFile("documents", 0)]

    def chunks(self, file: int, first: int) -> Iterator[Chunk]:
        iterator = islice(self._documents(), first, None)
        while documents := list(islice(iterator, self.CHUNK)):
            yield Chunk(documents, first, first + len(documents), 0)
            first += len(documents)

    def documents(self, file: int, chunk: Chunk) -> Iterator[tuple[str, Document | BadRecord]]:
        return ((f"document {chunk.first + n + 1}", document) for n, document in enumerate(chunk.payload))


def first_document(corpus: Corpus) -> Document | None:
    """The first record of a corpus that is a document; None: none is."""
    for file in range(len(corpus.files)):
        for chunk in corpus.chunks(file, 0):
            for _, document in corpus.documents(file, chunk):
                if not isinstance(document, BadRecord):
                    return document
    return None


def corpus_identity(document: Document) -> str:
    """A text that is equal for equal documents alone; of conversations it tells who said what."""
    return document if isinstance(document, str) else json.dumps(document)


def document_text(document: Document) -> str:
    """All of a document's text: what decides its split, what is counted in bytes, what a tokenizer trains on."""
    if isinstance(document, str):
        return document
    return "\n".join(message["content"] for message in document)
