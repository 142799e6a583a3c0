"""Formats of input files. Each format cuts a file into chunks, which is fast, and a chunk into rows, which workers do.

    .jsonl .ndjson .json  one JSON object per line; a .json may also be an array of objects
    .csv .tsv             with a header line; fields are separated by commas or tabs
    .parquet .arrow       one row per record
    .txt .md              the whole file is one text

A row is a dict of fields, a text, or a BadRecord. A record longer than the limit is a BadRecord, and is read
only up to the limit. If such a record is in an array, a .csv or an unreadable row group of a .parquet, reading of the
file stops, because the next record cannot be found. Other rows of .parquet and .arrow are measured after they are read.
"""

import csv
import json
import lzma
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa

from data_modules.corpora.corpus import BadRecord, Chunk, UnreadableFile
from data_modules.corpora.input_file_handle import InputFileHandle, Row, check_columns, record_too_long
from data_modules.corpora.json_array import JSON, array_elements
from data_modules.corpora.parquet_and_arrow import arrow_chunks, batch_rows, parquet_chunks

_BOM = "\ufeff"
CHUNK_BYTES = 1 << 20  # keeps a worker busy for about a quarter of a second


class Format(NamedTuple):
    """The two functions of a format, and the word for a record's place in the file."""

    chunks: Callable[[InputFileHandle, int], Iterator[Chunk]]
    rows: Callable[[Chunk], Iterator[Row]]
    place: str


def _line_chunks(file: InputFileHandle, first: int) -> Iterator[Chunk]:
    for _ in range(first):
        _read_line(file)
    lines: list[bytes | BadRecord] = []
    size = 0
    while line := _read_line(file):
        lines.append(line)
        size += len(line) if isinstance(line, bytes) else 0
        if size >= file.chunk_bytes:
            yield Chunk(lines, first, first + len(lines), file.tell())
            first, lines, size = first + len(lines), [], 0
    if lines:
        yield Chunk(lines, first, first + len(lines), file.tell())


def _read_line(file: InputFileHandle) -> bytes | BadRecord:
    """Read the next line. Of a line that is too long, only the length is kept."""
    line = file.stream.readline(file.limit + 1)
    if len(line) <= file.limit or line.endswith(b"\n"):
        return line
    length = len(line)
    while rest := file.stream.readline(file.chunk_bytes):
        length += len(rest)
        if rest.endswith(b"\n"):
            break
    return record_too_long(length, file.limit)


def _json_rows(chunk: Chunk) -> Iterator[Row]:
    for number, line in enumerate(chunk.payload, start=chunk.first + 1):
        if isinstance(line, tuple):  # an element of an array, which was already parsed to find its end
            yield line
        elif isinstance(line, BadRecord):
            yield number, line
        elif not line.isspace():
            yield number, _parse(line)


def _parse(line: bytes) -> Any:
    try:
        return JSON.decode(line.decode().removeprefix(_BOM))
    except UnicodeDecodeError as error:
        return BadRecord(f"it is not UTF-8 (byte {error.start + 1} of the line is {line[error.start]:#04x})")
    except json.JSONDecodeError as error:
        return BadRecord(f"it is not JSON ({error.msg.removesuffix(' at')} at character {error.pos + 1} of the line)")
    except (ValueError, RecursionError) as error:
        return BadRecord(f"it is not JSON ({error})")


def _json_chunks(file: InputFileHandle, first: int) -> Iterator[Chunk]:
    """Read lines or an array; the first character decides."""
    head = file.stream.peek(1 << 16)
    is_array = head.removeprefix(_BOM.encode()).lstrip()[:1] == b"["
    return _rows_in_chunks(_array_rows(file), file, first) if is_array else _line_chunks(file, first)


def _array_rows(file: InputFileHandle) -> Iterator[tuple[Row, int]]:
    elements = array_elements(file.text, limit=file.limit, at_once=file.chunk_bytes)
    for number, (line, value, size) in enumerate(elements, start=1):  # several can be in one line
        yield (f"{line} (record {number})", value if size <= file.limit else record_too_long(size, file.limit)), size


def _csv_chunks(file: InputFileHandle, first: int, *, delimiter: str = ",") -> Iterator[Chunk]:
    return _rows_in_chunks(_csv_rows(file, delimiter), file, first)


def _csv_rows(file: InputFileHandle, delimiter: str) -> Iterator[tuple[Row, int]]:
    """Yield (row, number of characters) of each record after the header. A too long record cannot be skipped."""
    csv.field_size_limit(file.limit)
    reader = csv.reader(_csv_lines(file), delimiter=delimiter, strict=True)
    header: list[str] = []
    while True:
        line = reader.line_num + 1
        try:
            values = next(reader, None)
        except csv.Error as error:
            raise UnreadableFile(f"line {line}: it is not a valid CSV record ({error})") from error
        if values is None:
            return
        if not header:
            header = values
            check_columns(header, file.fields)
        elif values:  # skip empty lines
            there = f"{len(values)} fields, but the header line has {len(header)}"
            row = dict(zip(header, values, strict=True)) if len(values) == len(header) else BadRecord(f"it has {there}")
            yield (line, row), sum(map(len, values))


def _csv_lines(file: InputFileHandle) -> Iterator[str]:
    while line := file.text.readline(file.limit + 2):
        if len(line) > file.limit and not line.endswith(("\n", "\r")):
            raise csv.Error(f"the line is longer than {file.limit / 1e6:,.1f} MB")
        yield line


def _rows_in_chunks(rows: Iterator[tuple[Row, int]], file: InputFileHandle, first: int) -> Iterator[Chunk]:
    """Group rows that can only be read sequentially into chunks."""
    number = size = 0
    chosen: list[Row] = []
    for row, length in rows:
        number += 1
        if number > first:
            chosen.append(row)
            size += length
        if size >= file.chunk_bytes:
            yield Chunk(chosen, number - len(chosen), number, file.tell())
            chosen, size = [], 0
    if chosen:
        yield Chunk(chosen, number - len(chosen), number, file.tell())


def _rows_as_they_are(chunk: Chunk) -> Iterator[Row]:
    return iter(chunk.payload)


def _text_chunks(file: InputFileHandle, first: int) -> Iterator[Chunk]:
    if first:
        return
    content = file.stream.read(file.limit + 1)
    length = len(content)
    while length > file.limit and (rest := file.stream.read(file.chunk_bytes)):
        length += len(rest)
    yield Chunk(content if length <= file.limit else record_too_long(length, file.limit), 0, 1, file.tell())


def _text_rows(chunk: Chunk) -> Iterator[Row]:
    try:
        yield 1, chunk.payload.decode().removeprefix(_BOM)
    except UnicodeDecodeError as error:
        line = chunk.payload.count(b"\n", 0, error.start) + 1
        yield (
            line,
            BadRecord(f"it is not UTF-8 (byte {error.start + 1} of the file is {chunk.payload[error.start]:#04x})"),
        )


_LINES = Format(_line_chunks, _json_rows, "line ")
_TEXT = Format(_text_chunks, _text_rows, "line ")
FORMATS = {
    ".jsonl": _LINES,
    ".ndjson": _LINES,
    ".json": Format(_json_chunks, _json_rows, "line "),
    ".csv": Format(_csv_chunks, _rows_as_they_are, "line "),
    ".tsv": Format(partial(_csv_chunks, delimiter="\t"), _rows_as_they_are, "line "),
    ".parquet": Format(parquet_chunks, batch_rows, "row "),
    ".arrow": Format(arrow_chunks, batch_rows, "row "),
    ".txt": _TEXT,
    ".md": _TEXT,
}
WHOLE_TEXTS = {".txt", ".md"}
SEEKABLE_FORMATS = {".parquet", ".arrow"}  # they are not read sequentially
COMPRESSIONS: dict[str, Callable[[Any], Any]] = {
    ".gz": partial(pa.CompressedInputStream, compression="gzip"),
    ".zst": partial(pa.CompressedInputStream, compression="zstd"),
    ".bz2": partial(pa.CompressedInputStream, compression="bz2"),
    ".xz": lzma.LZMAFile,
}  # each converts an open file to its decompressed stream
