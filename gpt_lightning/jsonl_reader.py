"""Read JSON-lines files, tolerating a torn last line and without loading long files completely."""

import json
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BLOCK = 1 << 21  # bytes read at once; larger buffers would be allocated with a new memory mapping each time


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read all objects of a JSON-lines file. An incomplete last line is ignored; a missing file gives an empty list.

    Raises:
        ValueError: A line is not a JSON object.
    """
    rows = list(read_objects(path))
    if None in rows:
        raise ValueError(f"line {rows.index(None) + 1} of {path} is not a JSON object: correct or remove it.")
    return [row for row in rows if row is not None]


def read_objects(path: Path) -> Iterator[dict[str, Any] | None]:
    """Yield the object of each complete line of a JSON-lines file; None for a line that is not an object."""
    for block in whole_lines(path):
        yield from parse_objects(block)


def parse_objects(block: bytes) -> Iterator[dict[str, Any] | None]:
    """Yield the object of each line in a block of complete lines; None for a line that is not an object."""
    for line in block.split(b"\n")[:-1]:
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            content = None
        yield content if isinstance(content, dict) else None


def iterate_rows(path: Path, *, begin: int = 0, having: bytes = b"") -> Iterator[dict[str, Any]]:
    """Yield the rows that contain the bytes `having`, from byte offset `begin` on. Unreadable lines are skipped."""
    with path.open("rb") as file:
        file.seek(begin)
        for line in file:
            if having in line and (row := _row(line)):
                yield row


def last_row(path: Path, *, having: bytes = b"") -> dict[str, Any]:
    """Return the last complete, readable row that contains `having`, searching from the end; empty if there is none."""
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
    """Parse a line; None if it is not an object with an integer step."""
    try:
        row = json.loads(line)
        return row if isinstance(row["step"], int) else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def whole_lines(path: Path) -> Iterator[bytes]:
    """Yield a file in blocks of complete lines. A last line without newline is omitted, because it may be unfinished."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            block += file.readline()
            yield block if block.endswith(b"\n") else block[: block.rfind(b"\n") + 1]
