"""Files of JSON lines, read so that neither a torn line nor a long file does harm."""

import json
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BLOCK = 1 << 21  # bytes read at once: larger ones cost the system a fresh mapping each


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file; a last line that is not whole is left for later, and no file has none.

    Raises:
        ValueError: a line is something else.
    """
    rows = list(read_objects(path))
    if None in rows:
        raise ValueError(f"line {rows.index(None) + 1} of {path} is no JSON object.")
    return [row for row in rows if row is not None]


def read_objects(path: Path) -> Iterator[dict[str, Any] | None]:
    """Each whole line of a JSON-lines file; None in the place of one that holds no object."""
    for block in whole_lines(path):
        yield from parse_objects(block)


def parse_objects(block: bytes) -> Iterator[dict[str, Any] | None]:
    """The same of some whole lines."""
    for line in block.split(b"\n")[:-1]:
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            content = None
        yield content if isinstance(content, dict) else None


def iterate_rows(path: Path, *, begin: int = 0, having: bytes = b"") -> Iterator[dict[str, Any]]:
    """The rows of a file from a byte on that have a text in them, one by one; what cannot be read is passed over."""
    with path.open("rb") as file:
        file.seek(begin)
        for line in file:
            if having in line and (row := _row(line)):
                yield row


def last_row(path: Path, *, having: bytes = b"") -> dict[str, Any]:
    """The last whole row that can be read and has a text in it, looked for from the file's end; empty: there is none."""
    if not path.is_file() or path.stat().st_size == 0:
        return {}
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        end = content.rfind(b"\n")
        while end >= 0:
            begin = content.rfind(b"\n", 0, end)
            line, end = content[begin + 1 : end], begin
            if having in line and (row := _row(line)):
                return row
    return {}


def _row(line: bytes) -> dict[str, Any] | None:
    """An object with a step; None: it is something else."""
    try:
        row = json.loads(line)
        return row if isinstance(row["step"], int) else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def whole_lines(path: Path) -> Iterator[bytes]:
    """A file in blocks of whole lines, without a last one that lacks its end: it is still being written."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            block += file.readline()
            yield block if block.endswith(b"\n") else block[: block.rfind(b"\n") + 1]
