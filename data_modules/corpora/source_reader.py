"""Documents that a source reader of the user's own gives: each is checked, and errors say where they are."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from data_modules.corpora.corpus import BadRecord, Document
from data_modules.corpora.record_fields import check_document


class SourceReader:
    """The documents of a source reader, anew at each call. It can be pickled if the reader can.

    Args:
        read: gives the documents.
        name: of the reader, for messages.
    """

    def __init__(self, read: Callable[[], Iterable[Any]], name: str) -> None:
        self._read = read
        self._name = name

    def __call__(self) -> Iterator[Document | BadRecord]:
        """Raises ValueError: the reader fails. Its own ValueError and OSError are passed on."""
        count = 0
        try:
            for document in self._read():
                yield check_document(document)
                count += 1
        except (ValueError, OSError):
            raise
        except Exception as error:  # the reader is the user's: anything can be wrong with it
            why = f"{type(error).__name__}: {' '.join(str(error).split()).rstrip('.')}"
            raise ValueError(f"the source reader {self._name} fails after {count:,} documents ({why}).") from error
