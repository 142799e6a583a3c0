"""Detect documents that occurred before, with a database on disk, so that memory does not grow with the corpus."""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

_CACHE_KB = 64 * 1024


class SeenDocuments:
    """Digests of a source's documents so far, each with the number of the first document with this digest.

    Args:
        path: The SQLite file.
        documents: Number of documents at the last commit; entries of later documents are deleted.

    Raises:
        OSError: The disk is full or fails. The methods raise this error too.
    """

    def __init__(self, path: Path, documents: int) -> None:
        self._path = path
        with _failing_as_files_do(path), ExitStack() as undone:
            self._connection = undone.enter_context(closing(_opened(path)))
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS seen (digest BLOB PRIMARY KEY, document INTEGER) WITHOUT ROWID"
            )
            self._connection.execute("DELETE FROM seen WHERE document >= ?", (documents,))
            undone.pop_all()

    def add(self, digest: bytes, document: int) -> bool:
        """Add a digest. Returns whether the digest is new."""
        with _failing_as_files_do(self._path):
            cursor = self._connection.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (digest, document))
        return cursor.rowcount == 1

    def commit(self) -> None:
        with _failing_as_files_do(self._path):
            self._connection.commit()

    def close(self) -> None:
        self._connection.close()


def count_distinct(paths: Iterable[Path]) -> int:
    """Count the distinct digests in several files. All digests are copied into the first file.

    Raises:
        OSError: The disk is full or fails.
    """
    first, *others = paths
    with _failing_as_files_do(first), closing(_opened(first)) as connection:
        for other in others:
            connection.execute("ATTACH ? AS other", (str(other),))
            connection.execute("INSERT OR IGNORE INTO seen SELECT * FROM other.seen")
            connection.commit()
            connection.execute("DETACH other")
        (count,) = connection.execute("SELECT count(*) FROM seen").fetchone()
    return int(count)


def _opened(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KB}")
    return connection


@contextmanager
def _failing_as_files_do(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise OSError(f"{path}: {error}") from error
