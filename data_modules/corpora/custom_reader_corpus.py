"""Checks of a registered source reader: each document is checked, and an error names the document at which it occurred."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from data_modules.corpora.corpus import BadRecord, TextOrConversation
from data_modules.corpora.record_fields import check_document


class CustomReaderCorpus:
    """A function that yields the checked documents of a source reader. This function can be pickled if the reader can
    be pickled.

    Args:
        read: The reader. Each call yields all documents from the start.
        name: Name of the reader, for error messages.
    """

    def __init__(self, read: Callable[[], Iterable[Any]], name: str) -> None:
        self._read = read
        self._name = name

    def __call__(self) -> Iterator[TextOrConversation | BadRecord]:
        """Yield the documents from the start. A document of the wrong type is replaced by a BadRecord.

        Raises:
            ValueError: The reader raises an exception. Its own ValueError and OSError are not wrapped.
        """
        count = 0
        try:
            for document in self._read():
                yield check_document(document)
                count += 1
        except (ValueError, OSError):
            raise
        except Exception as error:  # user code may raise anything
            why = f"{type(error).__name__}: {' '.join(str(error).split()).rstrip('.')}"
            raise ValueError(f"the source reader {self._name} failed after {count:,} documents ({why}).") from error
