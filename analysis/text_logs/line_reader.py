"""Read the lines of untrusted logs: torn files, mixed encodings, missing line ends.

At most one block is in memory at a time.

A file that starts with UTF-16's byte order mark is UTF-16. In any other file, a line ends with a line feed and the text
is UTF-8; bytes that are not UTF-8 are read as Windows-1252, whose letters include Latin-1's. NUL bytes mark where a
file system lost data, and separate the text before from the text after; a NUL next to every letter is a line of UTF-16
in such a file.
"""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

MAX_LINE_BYTES = 1 << 16
"""Bytes per line. A longer line is not a line of a log."""
_BLOCK = 1 << 20  # bytes; a multiple of a UTF-16 unit
_WIDE = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_NULS = re.compile(rb"\0+")
# escaped byte -> character
_WINDOWS = {0xDC00 + byte: bytes([byte]).decode("cp1252", "replace") for byte in range(0x80, 0x100)}


def read_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, without line feeds. Text is converted to UTF-8.

    A line longer than `MAX_LINE_BYTES` is cut, but more than `MAX_LINE_BYTES` bytes are returned.

    Args:
        path: path of the log.
    """
    with path.open("rb") as file:
        block = file.read(_BLOCK)
        encoding = _WIDE.get(block[:2])
        if encoding and 2 * block.count("\n".encode(encoding)) < block.count(b"\n"):
            encoding = None  # only its first line is UTF-16
        end = "\n".encode(encoding or "utf-8")
        rest = b""
        while block:
            lines = (rest + block).split(end)
            rest = lines.pop()[: 2 * MAX_LINE_BYTES + 2]
            yield from (_as_utf8(line, encoding) for line in lines) if encoding else lines
            block = file.read(_BLOCK)
        if rest:
            yield _as_utf8(rest, encoding) if encoding else rest


def _as_utf8(line: bytes, encoding: str) -> bytes:
    return line.decode(encoding, "replace").encode()


def split_lines(line: bytes) -> list[bytes]:
    """The parts of a line that were each written at once; empty if nothing is left of the line.

    Args:
        line: a line from `read_lines`.
    """
    if b"\0" not in line:
        pieces = [line]
    elif 3 * line.count(b"\0") > len(line) and b"\0\0\0" not in line:
        pieces = [line.replace(b"\0", b"")]
    else:
        pieces = [piece for piece in _NULS.split(line) if piece]
    for mark in (codecs.BOM_UTF8, *_WIDE):
        pieces = [piece.removeprefix(mark) for piece in pieces]
    return pieces


def decode_text(piece: bytes) -> str:
    """A part of a line as text, without the carriage return of a Windows line end."""
    piece = piece.rstrip(b"\r")
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return piece.decode("utf-8", "surrogateescape").translate(_WINDOWS)
