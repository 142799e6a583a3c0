"""An input file, open, and what is said of it in every format."""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from data_modules.corpora.corpus import BadRecord

Row = tuple[int | str, Any]  # number of the line or row in the file, from 1, and what stands there


class OpenInputFile(NamedTuple):
    """An input file, open."""

    stream: io.BufferedReader  # decompressed
    tell: Callable[[], int]  # bytes of the file itself that were read so far
    limit: int  # bytes, or characters of a text that is decoded as a whole: what is longer is a bad record
    fields: Mapping[str, str] | None  # the fields that are wanted of a record -> how another is named; None: all
    text: io.TextIOWrapper  # the same stream, decoded
    chunk_bytes: int  # records of about so many bytes make a chunk


def check_columns(columns: Sequence[str], fields: Mapping[str, str] | None) -> None:
    """Raises BadRecord: a wanted column is missing, or there are two of its name."""
    for field, advice in (fields or {}).items():
        if field not in columns:
            raise BadRecord(f"there is no column '{field}'; the file has {', '.join(columns) or 'none'} ({advice})")
    for column in columns if fields is None else fields:
        if (number := columns.count(column)) > 1:
            raise BadRecord(
                f"there are {number} columns '{column}': which of them is meant is not known, so rename the others"
            )


def record_too_long(length: int, limit: int) -> BadRecord:
    """What stands for a record that is not held."""
    return BadRecord(f"is a record of {length / 1e6:,.1f} MB, longer than the {limit / 1e6:,.1f} MB of max_record_mb")
