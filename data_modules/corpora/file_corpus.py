"""A corpus in local files or files on the hub, read record by record."""

import io
import lzma
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from shutil import copyfileobj
from typing import Any

import fsspec
import pyarrow as pa

from data_modules.corpora import file_formats
from data_modules.corpora.corpus import BadRecord, Chunk, InputFile, TextOrConversation, UnreadableFile, document_text
from data_modules.corpora.file_formats import COMPRESSIONS, FORMATS, SEEKABLE_FORMATS, Format
from data_modules.corpora.find_local_files import known_formats, suffixes
from data_modules.corpora.input_file_handle import InputFileHandle, record_too_long
from data_modules.corpora.record_fields import RecordFields


class FileRecords:
    """Records in files of the supported formats, in the order of the files.

    Args:
        urls: Name of each file -> path of the file, or an address that fsspec can open.
        fields: Field to read -> advice on how to name another field, for error messages; None: read all fields.
        max_record_mb: Maximum size of a record in MB; longer records are BadRecords.

    Raises:
        ValueError: A file has no supported format, or does not exist.
    """

    def __init__(self, urls: Mapping[str, str], *, fields: Mapping[str, str] | None, max_record_mb: float) -> None:
        self.limit = int(max_record_mb * 1e6)
        """Maximum size of a record, in bytes, or, for records read as text, in characters."""
        self._fields = fields
        self._urls = list(urls.values())
        self.files = [InputFile(name, _size(url)) for name, url in urls.items()]
        for name in urls:
            detect_format(name)

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Yield (location, content) of every record. The content is a dict of fields, a text, or a BadRecord."""
        for file in range(len(self.files)):
            for chunk in self.chunks(file, 0):
                yield from self.rows(file, chunk)

    def rows(self, file: int, chunk: Chunk) -> Iterator[tuple[str, Any]]:
        """Yield the same for the records of a chunk. This is the slow part of reading."""
        name = self.files[file].name
        if isinstance(chunk.payload, BadRecord):
            yield name, chunk.payload
            return
        form = detect_format(name)
        for number, row in form.rows(chunk):
            yield f"{name}, {form.place}{number}", row

    def chunks(self, file: int, first: int) -> Iterator[Chunk]:
        """Yield the records of `files[file]` from number `first` on. Raises ValueError if the file cannot be read."""
        name = self.files[file].name
        try:
            with self._open(file) as opened:
                if not opened.stream.peek(1):
                    chunks = iter([] if first else [Chunk(BadRecord("the file is empty"), 0, 1, 0)])
                else:
                    chunks = detect_format(name).chunks(opened, first)
                yield from chunks
        except UnreadableFile as error:
            raise ValueError(
                f"{name}, {error}. The file cannot be read beyond this point, so on_bad_record=skip does not help: repair "
                "or replace the file."
            ) from error
        except BadRecord as error:  # applies to all records
            raise ValueError(f"{name}: {error}.") from error
        except Exception as error:
            own = (OSError, EOFError, lzma.LZMAError, pa.ArrowException)
            if not isinstance(error, own) and not _is_address(self._urls[file]):
                raise  # for a remote file, a lost connection may appear as an exception of any library
            reason = " ".join(str(error).split()).rstrip(".")
            raise ValueError(f"{name} cannot be read completely: {reason}.") from error

    @contextmanager
    def _open(self, file: int) -> Iterator[InputFileHandle]:
        suffix, compression = suffixes(self.files[file].name)
        url = self._urls[file]
        with (
            fsspec.open(url, "rb") if _is_address(url) else Path(url).open("rb") as raw,
            tempfile.TemporaryFile() as spool,
        ):
            stream: Any = raw
            if compression:
                stream = decompressed = COMPRESSIONS[compression](raw)
                if suffix in SEEKABLE_FORMATS:
                    copyfileobj(decompressed, spool)  # this closes `raw` once it is no longer referenced
                    spool.seek(0)
                    stream = spool
            buffered = stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(stream, 1 << 20)
            text = io.TextIOWrapper(buffered, encoding="utf-8-sig", errors="surrogateescape", newline="")
            yield InputFileHandle(buffered, raw.tell, self.limit, self._fields, text, file_formats.CHUNK_BYTES)


class FileCorpus:
    """The documents in the records of files.

    Args:
        urls: Name of each file -> path of the file, or an address that fsspec can open.
        fields: See `RecordFields`.
        origin: Where the files come from, as written to source.json.
        max_record_mb: Maximum size of a record in MB; longer records are BadRecords.
        setting: Setting that names the fields on the command line, for error messages.

    Raises:
        ValueError: A file has no supported format, or does not exist.
    """

    def __init__(
        self,
        urls: Mapping[str, str],
        *,
        fields: Mapping[str, str | None],
        origin: Mapping[str, Any],
        max_record_mb: float,
        setting: str = "fields",
    ) -> None:
        self._fields = RecordFields(fields, setting=setting)
        self._records = FileRecords(urls, fields=self._fields.columns, max_record_mb=max_record_mb)
        self.origin = dict(origin) | {"fields": dict(fields), "max_record_mb": max_record_mb}
        self.files = self._records.files

    def chunks(self, file: int, first: int) -> Iterator[Chunk]:
        return self._records.chunks(file, first)

    def documents(self, file: int, chunk: Chunk) -> Iterator[tuple[str, TextOrConversation | BadRecord]]:
        for where, row in self._records.rows(file, chunk):
            document = self._fields.document(row)
            if not isinstance(document, BadRecord) and len(document_text(document)) > self._records.limit:
                document = record_too_long(len(document_text(document)), self._records.limit)
            yield where, document


def detect_format(name: str) -> Format:
    """Return the format of a file, from its name.

    Raises:
        ValueError: The format is not supported.
    """
    suffix, _ = suffixes(name)
    if suffix not in FORMATS:
        raise ValueError(f"{name} has no supported format: its name must end in one of {known_formats()}.")
    return FORMATS[suffix]


def _is_address(url: str) -> bool:
    """Return whether fsspec must open it. Local paths are opened directly: fsspec interprets `::` and the like."""
    return re.match(r"[a-z][a-z0-9+.-]*://", url) is not None


def _size(url: str) -> int:
    try:
        if not _is_address(url):
            return Path(url).stat().st_size
        filesystem, path = fsspec.url_to_fs(url)
        return int(filesystem.info(path)["size"] or 0)
    except FileNotFoundError as error:
        raise ValueError(f"{url} does not exist: check the path or address.") from error
