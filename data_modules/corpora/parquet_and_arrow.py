"""Parquet and Arrow files; one row is a record. `max_record_mb`, not the file, bounds how much is decoded at once."""

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_modules.corpora.corpus import BadRecord, Chunk, UnreadableFile
from data_modules.corpora.input_file_handle import InputFileHandle, Row, check_columns


def parquet_chunks(file: InputFileHandle, first: int) -> Iterator[Chunk]:
    parquet = pq.ParquetFile(file.stream)
    check_columns(parquet.schema_arrow.names, file.fields)
    start = 0
    for group in range(parquet.num_row_groups):
        n_rows = parquet.metadata.row_group(group).num_rows
        if start + n_rows > first:
            try:
                at_once = _rows_at_once(parquet.metadata.row_group(group), file)
            except BadRecord as error:
                raise UnreadableFile(f"rows {start + 1:,} to {start + n_rows:,}: {error}") from error
            columns = list(file.fields) if file.fields else None
            batches = parquet.iter_batches(at_once, row_groups=[group], columns=columns)
            yield from _batches_from(_combined(batches, file.chunk_bytes), file, start, first)
        start += n_rows


def _rows_at_once(group: pq.RowGroupMetaData, file: InputFileHandle) -> int:
    """Return how many rows of a Parquet row group to decode together; about a chunk.

    Each row may refer to the longest value of a dictionary, which is decoded again for each row.

    Raises:
        BadRecord: A row may be too long to decode.
    """
    columns = [group.column(n) for n in range(group.num_columns)]
    wanted = [
        c for c in columns if not file.fields or f"{c.path_in_schema}.".startswith(tuple(f"{f}." for f in file.fields))
    ]
    size = sum(column.total_uncompressed_size for column in wanted)
    compressed = sum(column.total_compressed_size for column in wanted)
    # a character takes up to 4 bytes, and useful text does not compress to 1/200
    if size > 4 * file.limit * group.num_rows or size > max(2 * file.limit, 200 * compressed):
        raise BadRecord(
            f"{size / 1e6:,.1f} MB are compressed to {compressed / 1e6:,.3f} MB, which indicates a record of more "
            f"than the {file.limit / 1e6:,.1f} MB of max_record_mb"
        )
    at_once = file.chunk_bytes * group.num_rows // max(1, size)
    in_dictionaries = sum(c.total_uncompressed_size for c in wanted if c.has_dictionary_page)
    if in_dictionaries:
        at_once = min(at_once, 4 * file.limit // min(in_dictionaries, file.limit))
    return max(1, at_once)


def _combined(batches: Iterable[pa.RecordBatch], chunk_bytes: int) -> Iterator[pa.RecordBatch]:
    """Combine batches to about the size of a chunk."""
    held: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        held.append(batch)
        size += batch.nbytes
        if size >= chunk_bytes:
            yield from pa.Table.from_batches(held).combine_chunks().to_batches()
            held, size = [], 0
    if held:
        yield from pa.Table.from_batches(held).combine_chunks().to_batches()


def arrow_chunks(file: InputFileHandle, first: int) -> Iterator[Chunk]:
    if file.stream.peek(6)[:6] == b"ARROW1":  # the file format; otherwise the stream format
        reader = pa.ipc.open_file(file.stream)
        batches: Iterable[pa.RecordBatch] = (reader.get_batch(n) for n in range(reader.num_record_batches))
    else:
        reader = batches = pa.ipc.open_stream(file.stream)
    check_columns(reader.schema.names, file.fields)
    wanted = list(file.fields or reader.schema.names)
    yield from _batches_from((batch.select(wanted) for batch in batches), file, 0, first)


def _batches_from(batches: Iterable[pa.RecordBatch], file: InputFileHandle, start: int, first: int) -> Iterator[Chunk]:
    """Yield the rows from number `first` on, of batches whose first row has number `start`."""
    for batch in batches:
        at_once = max(
            1, file.chunk_bytes // max(1, batch.nbytes // max(1, batch.num_rows) + _longest_in_dictionaries(batch))
        )
        for offset in range(max(0, first - start), batch.num_rows, at_once):
            part = batch.slice(offset, at_once)
            n_rows = part.num_rows
            try:
                part.validate(full=True)  # reading a damaged batch could crash the process
                if n_rows < batch.num_rows:  # copy, because a slice is sent to a worker together with the whole batch
                    part = _without_dictionaries(part).take(pa.array(range(n_rows)))
            except pa.ArrowInvalid:
                part = [_sound_row(part.slice(n, 1)) for n in range(n_rows)]
            yield Chunk(part, start + offset, start + offset + n_rows, file.tell())
        start += batch.num_rows


def _longest_in_dictionaries(batch: pa.RecordBatch) -> int:
    """Return the maximum number of bytes that a row can refer to in dictionaries."""
    values = [column.dictionary for column in batch.columns if pa.types.is_dictionary(column.type)]
    texts = [array for array in values if pa.types.is_string(array.type) or pa.types.is_large_string(array.type)]
    return sum(pc.max(pc.binary_length(array)).as_py() or 0 for array in texts)


def _without_dictionaries(batch: pa.RecordBatch) -> pa.RecordBatch:
    columns = [c.dictionary_decode() if pa.types.is_dictionary(c.type) else c for c in batch.columns]
    return pa.record_batch(columns, names=batch.schema.names)


def _sound_row(batch: pa.RecordBatch) -> Any:
    try:
        batch.validate(full=True)
        return batch.to_pylist()[0]
    except pa.ArrowInvalid as error:
        return BadRecord(f"the row is damaged or not UTF-8 ({error})")


def batch_rows(chunk: Chunk) -> Iterator[Row]:
    rows = chunk.payload if isinstance(chunk.payload, list) else chunk.payload.to_pylist()
    return iter(enumerate(rows, start=chunk.first + 1))
