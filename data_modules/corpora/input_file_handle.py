"""An open input file, and error messages shared by all formats."""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from data_modules.corpora.corpus import BadRecord

Row = tuple[int | str, Any]  # number of the line or row in the file, from 1, and its content


class InputFileHandle(NamedTuple):
    """An open input file."""

    stream: io.BufferedReader  # decompressed
    tell: Callable[[], int]  # bytes read so far of the file itself, before decompression
    limit: int  # maximum size of a record in bytes, or in characters if the text is decoded as a whole
    fields: Mapping[str, str] | None  # field to read -> advice on how to name another one; None: read all fields
    text: io.TextIOWrapper  # the same stream, decoded
    chunk_bytes: int  # approximate size of a chunk of records


def check_columns(columns: Sequence[str], fields: Mapping[str, str] | None) -> None:
    """Check that each wanted column exists once. Raises BadRecord otherwise."""
    for field, advice in (fields or {}).items():
        if field not in columns:
            raise BadRecord(f"the column '{field}' is missing; the file has {', '.join(columns) or 'none'} ({advice})")
    for column in columns if fields is None else fields:
        if (number := columns.count(column)) > 1:
            raise BadRecord(f"there are {number} columns '{column}': names must be unique, so rename the others")


def record_too_long(length: int, limit: int) -> BadRecord:
    """Return the BadRecord for a record that is not kept because of its length."""
    return BadRecord(
        f"the record has {length / 1e6:,.1f} MB: it must have at most {limit / 1e6:,.1f} MB (max_record_mb)"
    )
