"""The formats of input files. Each cuts a file into chunks, which is cheap, and a chunk into rows, which workers do.

    .jsonl .ndjson .json  one JSON object a line; a .json may also be one array of them
    .csv .tsv             with a header line; between the fields are commas, or tabs
    .parquet .arrow       one row a record
    .txt .md              the whole file is one text

A row is what lies there: a dict of fields, a text, or a BadRecord. A record longer than the limit is a bad one, of which no more
than that is read; it ends an array or a .csv, whose next record cannot be found without it, and a .parquet whose row group
cannot be read without it. Other rows of .parquet and .arrow are measured when they were read.
"""

import csv
import json
import lzma
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa

from data_modules.corpora.corpus import BadRecord, Chunk, UnreadableFile
from data_modules.corpora.json_array import JSON, array_elements
from data_modules.corpora.open_input_file import OpenInputFile, Row, check_columns, record_too_long
from data_modules.corpora.parquet_and_arrow import arrow_chunks, batch_rows, parquet_chunks

_BOM = "\ufeff"
CHUNK_BYTES = 1 << 20  # about half a megabyte of tokens: enough to keep a worker busy for a quarter of a second


class Format(NamedTuple):
    """A format: its two halves, and what a record's place in the file is called."""

    chunks: Callable[[OpenInputFile, int], Iterator[Chunk]]
    rows: Callable[[Chunk], Iterator[Row]]
    place: str


def _line_chunks(file: OpenInputFile, first: int) -> Iterator[Chunk]:
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


def _read_line(file: OpenInputFile) -> bytes | BadRecord:
    """The next line; of one that is too long only its length is kept."""
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
        if isinstance(line, tuple):  # an element of an array, which had to be parsed to be found
            yield line
        elif isinstance(line, BadRecord):
            yield number, line
        elif not line.isspace():
            yield number, _parse(line)


def _parse(line: bytes) -> Any:
    try:
        return JSON.decode(line.decode().removeprefix(_BOM))
    except UnicodeDecodeError as error:
        return BadRecord(f"is not UTF-8 (byte {error.start + 1} of the line is {line[error.start]:#04x})")
    except json.JSONDecodeError as error:
        return BadRecord(f"is not JSON ({error.msg.removesuffix(' at')} at character {error.pos + 1} of the line)")
    except (ValueError, RecursionError) as error:
        return BadRecord(f"is not JSON ({error})")


def _json_chunks(file: OpenInputFile, first: int) -> Iterator[Chunk]:
    """Lines or an array: the first sign decides."""
    head = file.stream.peek(1 << 16)
    is_array = head.removeprefix(_BOM.encode()).lstrip()[:1] == b"["
    return _rows_in_chunks(_array_rows(file), file, first) if is_array else _line_chunks(file, first)


def _array_rows(file: OpenInputFile) -> Iterator[tuple[Row, int]]:
    elements = array_elements(file.text, limit=file.limit, at_once=file.chunk_bytes)
    for number, (line, value, size) in enumerate(elements, start=1):  # many may stand in one line
        yield (f"{line} (record {number})", value if size <= file.limit else record_too_long(size, file.limit)), size


def _csv_chunks(file: OpenInputFile, first: int, *, delimiter: str = ",") -> Iterator[Chunk]:
    return _rows_in_chunks(_csv_rows(file, delimiter), file, first)


def _csv_rows(file: OpenInputFile, delimiter: str) -> Iterator[tuple[Row, int]]:
    """(row, its characters) of each record after the header line; one that is longer than the limit cannot be skipped."""
    csv.field_size_limit(file.limit)
    reader = csv.reader(_csv_lines(file), delimiter=delimiter, strict=True)
    header: list[str] = []
    while True:
        line = reader.line_num + 1
        try:
            values = next(reader, None)
        except csv.Error as error:
            raise UnreadableFile(f"line {line}: no CSV record can be read here ({error})") from error
        if values is None:
            return
        if not header:
            header = values
            check_columns(header, file.fields)
        elif values:  # no empty line
            there = f"{len(values)} fields and the header line {len(header)}"
            row = dict(zip(header, values, strict=True)) if len(values) == len(header) else BadRecord(f"has {there}")
            yield (line, row), sum(map(len, values))


def _csv_lines(file: OpenInputFile) -> Iterator[str]:
    while line := file.text.readline(file.limit + 2):
        if len(line) > file.limit and not line.endswith(("\n", "\r")):
            raise csv.Error(f"a line longer than {file.limit / 1e6:,.1f} MB")
        yield line


def _rows_in_chunks(rows: Iterator[tuple[Row, int]], file: OpenInputFile, first: int) -> Iterator[Chunk]:
    """Rows that have to be read one after the other, together in chunks."""
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


def _text_chunks(file: OpenInputFile, first: int) -> Iterator[Chunk]:
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
        yield line, BadRecord(f"is not UTF-8 (byte {error.start + 1} of the file is {chunk.payload[error.start]:#04x})")


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
SEEKABLE_FORMATS = {".parquet", ".arrow"}  # they are not read from the front to the end
COMPRESSIONS: dict[str, Callable[[Any], Any]] = {
    ".gz": partial(pa.CompressedInputStream, compression="gzip"),
    ".zst": partial(pa.CompressedInputStream, compression="zstd"),
    ".bz2": partial(pa.CompressedInputStream, compression="bz2"),
    ".xz": lzma.LZMAFile,
}  # an open file -> what it decompresses to
