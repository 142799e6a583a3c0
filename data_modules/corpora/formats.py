"""The formats of input files. Each cuts a file into chunks, which is cheap, and a chunk into rows, which workers do.

    .jsonl .json     one JSON object a line; a .json may also be one array of them
    .csv             with a header line
    .parquet .arrow  one row a record
    .txt .md         the whole file is one text

A row is what lies there: a dict of fields, a text, or a BadRecord. No record longer than the limit is ever held.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from data_modules.corpora.documents import BadRecord, Chunk

CHUNK_BYTES = 1 << 20  # about half a megabyte of tokens: enough to keep a worker busy for a quarter of a second
Row = tuple[int, Any]  # number of the line or row in the file, from 1, and what stands there


class Opened(NamedTuple):
    """An input file, open."""

    stream: BinaryIO  # decompressed
    tell: Callable[[], int]  # bytes of the file itself that were read so far
    limit: int  # bytes, or characters of a text that is decoded as a whole: what is longer is a bad record
    fields: Sequence[str]  # the fields that are wanted of a record
    text: io.TextIOWrapper  # the same stream, decoded


class Format(NamedTuple):
    """A format: its two halves, and what a record's place in the file is called."""

    chunks: Callable[[Opened, int], Iterator[Chunk]]
    rows: Callable[[Chunk], Iterator[Row]]
    place: str


def _line_chunks(file: Opened, first: int) -> Iterator[Chunk]:
    for _ in range(first):
        _read_line(file)
    lines: list[bytes | BadRecord] = []
    size = 0
    while line := _read_line(file):
        lines.append(line)
        size += len(line) if isinstance(line, bytes) else 0
        if size >= CHUNK_BYTES:
            yield Chunk(lines, first, first + len(lines), file.tell())
            first, lines, size = first + len(lines), [], 0
    if lines:
        yield Chunk(lines, first, first + len(lines), file.tell())


def _read_line(file: Opened) -> bytes | BadRecord:
    """The next line; of one that is too long only its length is kept."""
    line = file.stream.readline(file.limit + 1)
    if len(line) <= file.limit or line.endswith(b"\n"):
        return line
    length = len(line)
    while rest := file.stream.readline(CHUNK_BYTES):
        length += len(rest)
        if rest.endswith(b"\n"):
            break
    return too_long(length, file.limit)


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
        return json.loads(line)
    except UnicodeDecodeError as error:
        return BadRecord(f"is not UTF-8 (byte {error.start + 1} of the line is {line[error.start]:#04x})")
    except (ValueError, RecursionError) as error:
        return BadRecord(f"is not JSON ({str(error) or 'nested too deeply'})")


def _json_chunks(file: Opened, first: int) -> Iterator[Chunk]:
    """Lines or an array: the first sign decides."""
    head = file.stream.peek(1 << 16)  # type: ignore[attr-defined]
    is_array = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"["
    return _rows_in_chunks(_array_rows(file), file, first) if is_array else _line_chunks(file, first)


def _array_rows(file: Opened) -> Iterator[tuple[Row, int]]:
    """(row, its characters) of each element of a JSON array, of which one element at a time is held.

    Raises:
        BadRecord: the array is malformed; what comes after cannot be found any more.
    """
    text = file.text
    decoder = json.JSONDecoder()
    buffer, position, line = "", 0, 1

    def skip(signs: str) -> str:
        """Move past these signs, reading on where the buffer ends; the sign after them."""
        nonlocal buffer, position, line
        while True:
            start = position
            while position < len(buffer) and buffer[position] in signs:
                position += 1
            line += buffer.count("\n", start, position)
            if position < len(buffer):
                return buffer[position]
            buffer, position = _read_text(text, line), 0
            if not buffer:
                raise BadRecord(f"line {line}: the file ends inside its array")

    skip(" \t\r\n")
    position += 1  # the opening bracket
    first = True
    while (sign := skip(" \t\r\n")) != "]":
        if not first:
            if sign != ",":
                raise BadRecord(f"line {line}: a comma is missing between two records")
            position += 1
            skip(" \t\r\n")
        while True:
            try:
                value, end = decoder.raw_decode(buffer, position)
                break
            except (json.JSONDecodeError, RecursionError) as error:
                buffer, position = buffer[position:], 0
                more = _read_text(text, line, max(CHUNK_BYTES, len(buffer)))  # twice as much each time
                if not more or len(buffer) > file.limit:
                    raise BadRecord(f"line {line}: the record that begins here is not JSON ({error})") from error
                buffer += more
        if end - position > file.limit:
            value = too_long(end - position, file.limit)
        yield (line, value), end - position
        line += buffer.count("\n", position, end)
        position, first = end, False


def _read_text(text: io.TextIOBase, line: int, size: int = CHUNK_BYTES) -> str:
    try:
        return text.read(size)
    except UnicodeDecodeError as error:
        raise BadRecord(f"line {line} or some lines after it: the text is not UTF-8 ({error.reason})") from error


def _csv_chunks(file: Opened, first: int) -> Iterator[Chunk]:
    return _rows_in_chunks(_csv_rows(file), file, first)


def _csv_rows(file: Opened) -> Iterator[tuple[Row, int]]:
    csv.field_size_limit(file.limit)
    reader = csv.DictReader(file.text, strict=True)
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except (csv.Error, UnicodeDecodeError) as error:  # where the next record begins is not known any more
            raise BadRecord(f"line {reader.line_num + 1}: no CSV record can be read here ({error})") from error
        size = sum(len(value) for value in fields.values() if isinstance(value, str))
        if None in fields:
            yield (reader.line_num, BadRecord("has more fields than the header line")), size
        else:
            yield (reader.line_num, fields), size


def _rows_in_chunks(rows: Iterator[tuple[Row, int]], file: Opened, first: int) -> Iterator[Chunk]:
    """Rows that have to be read one after the other, together in chunks."""
    number = size = 0
    chosen: list[Row] = []
    for row, length in rows:
        number += 1
        if number > first:
            chosen.append(row)
            size += length
        if size >= CHUNK_BYTES:
            yield Chunk(chosen, number - len(chosen), number, file.tell())
            chosen, size = [], 0
    if chosen:
        yield Chunk(chosen, number - len(chosen), number, file.tell())


def _rows_as_they_are(chunk: Chunk) -> Iterator[Row]:
    return iter(chunk.payload)


def _parquet_chunks(file: Opened, first: int) -> Iterator[Chunk]:
    parquet = pq.ParquetFile(file.stream)
    _refuse_missing_columns(parquet.schema_arrow, file.fields)
    start = 0
    for group in range(parquet.num_row_groups):
        metadata = parquet.metadata.row_group(group)
        if start + metadata.num_rows > first:
            at_once = max(1, CHUNK_BYTES * metadata.num_rows // max(1, metadata.total_byte_size))
            batches = parquet.iter_batches(at_once, row_groups=[group], columns=list(file.fields))
            yield from _batches_from(batches, file, start, first)
        start += metadata.num_rows


def _arrow_chunks(file: Opened, first: int) -> Iterator[Chunk]:
    if file.stream.peek(6)[:6] == b"ARROW1":  # type: ignore[attr-defined]  # the file format, else the stream format
        reader = pa.ipc.open_file(file.stream)
        batches: Iterable[pa.RecordBatch] = (reader.get_batch(n) for n in range(reader.num_record_batches))
    else:
        reader = batches = pa.ipc.open_stream(file.stream)
    _refuse_missing_columns(reader.schema, file.fields)
    yield from _batches_from((batch.select(list(file.fields)) for batch in batches), file, 0, first)


def _batches_from(batches: Iterable[pa.RecordBatch], file: Opened, start: int, first: int) -> Iterator[Chunk]:
    """The rows from number `first` on of batches whose first row is number `start`."""
    for batch in batches:
        at_once = max(1, CHUNK_BYTES * batch.num_rows // max(1, batch.nbytes))
        for offset in range(max(0, first - start), batch.num_rows, at_once):
            part = batch.slice(offset, at_once)
            yield Chunk(part, start + offset, start + offset + part.num_rows, file.tell())
        start += batch.num_rows


def _batch_rows(chunk: Chunk) -> Iterator[Row]:
    return iter(enumerate(chunk.payload.to_pylist(), start=chunk.first + 1))


def _refuse_missing_columns(schema: pa.Schema, fields: Sequence[str]) -> None:
    for field in fields:
        if field not in schema.names:
            raise BadRecord(f"there is no column '{field}'; the file has {', '.join(schema.names)}")


def _text_chunks(file: Opened, first: int) -> Iterator[Chunk]:
    if first:
        return
    content = file.stream.read(file.limit + 1)
    length = len(content)
    while length > file.limit and (rest := file.stream.read(CHUNK_BYTES)):
        length += len(rest)
    yield Chunk(content if length <= file.limit else too_long(length, file.limit), 0, 1, file.tell())


def _text_rows(chunk: Chunk) -> Iterator[Row]:
    try:
        yield 1, chunk.payload.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = chunk.payload.count(b"\n", 0, error.start) + 1
        yield line, BadRecord(f"is not UTF-8 (byte {error.start + 1} of the file is {chunk.payload[error.start]:#04x})")


def too_long(length: int, limit: int) -> BadRecord:
    """What stands for a record that is not held."""
    return BadRecord(f"is a record of {length / 1e6:,.1f} MB, longer than the {limit / 1e6:,.1f} MB of max_record_mb")


_LINES = Format(_line_chunks, _json_rows, "line ")
_TEXT = Format(_text_chunks, _text_rows, "line ")
FORMATS = {
    ".jsonl": _LINES,
    ".json": Format(_json_chunks, _json_rows, "line "),
    ".csv": Format(_csv_chunks, _rows_as_they_are, "line "),
    ".parquet": Format(_parquet_chunks, _batch_rows, "row "),
    ".arrow": Format(_arrow_chunks, _batch_rows, "row "),
    ".txt": _TEXT,
    ".md": _TEXT,
}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
SEEKING = {".parquet", ".arrow"}  # they are not read from the front to the end
