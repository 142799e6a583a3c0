"""The interface of a corpus. A corpus yields documents in chunks, so that a reader can continue where another reader
stopped.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, Protocol

from gpt_lightning.tokenizer import Message

TextOrConversation = str | list[Message]


class BadRecord(ValueError):
    """The reason why a record is not a document. This object is passed on in place of the record."""


class UnreadableFile(ValueError):
    """The rest of a file cannot be read, because the start of its next record is unknown."""


class Chunk(NamedTuple):
    """Consecutive records of one input file, not decoded yet, small enough to send to a worker."""

    payload: Any
    first: int  # number of its first record in the file, from 0
    stop: int  # number of the record after its last, where reading continues
    read: int  # bytes of the file read so far


@dataclass(frozen=True)
class InputFile:
    """One of the files that a corpus is read from."""

    name: str
    n_bytes: int  # size on disk, compressed or not; 0: unknown


class Corpus(Protocol):
    """Documents in a fixed order, in files that can be read from any record on. A corpus can be pickled, for workers."""

    files: list[InputFile]
    origin: dict[str, Any]
    """Where the text comes from, as written to source.json."""

    def chunks(self, file: int, first: int) -> Iterator[Chunk]:
        """Yield the records of `files[file]` from number `first` on. Raises ValueError if the file cannot be read."""

    def documents(self, file: int, chunk: Chunk) -> Iterator[tuple[str, TextOrConversation | BadRecord]]:
        """Yield (location, document or BadRecord) of each record of a chunk. This is slow, so workers do it."""


class FunctionCorpus:
    """A corpus from a function that yields the same documents in the same order at each call."""

    CHUNK = 256  # documents

    def __init__(
        self, documents: Callable[[], Iterable[TextOrConversation | BadRecord]], *, origin: dict[str, Any] | None = None
    ) -> None:
        self._documents = documents
        self.origin = origin or {}
        self.files = [InputFile("documents", 0)]

    def chunks(self, file: int, first: int) -> Iterator[Chunk]:
        iterator = islice(self._documents(), first, None)
        while documents := list(islice(iterator, self.CHUNK)):
            yield Chunk(documents, first, first + len(documents), 0)
            first += len(documents)

    def documents(self, file: int, chunk: Chunk) -> Iterator[tuple[str, TextOrConversation | BadRecord]]:
        return ((f"document {chunk.first + n + 1}", document) for n, document in enumerate(chunk.payload))


def first_document(corpus: Corpus) -> TextOrConversation | None:
    """Return the first document of a corpus; None if there are no documents."""
    for file in range(len(corpus.files)):
        for chunk in corpus.chunks(file, 0):
            for _, document in corpus.documents(file, chunk):
                if not isinstance(document, BadRecord):
                    return document
    return None


def corpus_identity(document: TextOrConversation) -> str:
    """Return a string that is equal only for equal documents. For conversations, the string includes the roles."""
    return document if isinstance(document, str) else json.dumps(document)


def document_text(document: TextOrConversation) -> str:
    """Return a document's whole text, which determines its split and its number of bytes, and trains tokenizers."""
    if isinstance(document, str):
        return document
    return "\n".join(message["content"] for message in document)
