"""Lines of a log that nobody vouches for: torn files, mixed encodings, no ends of lines; never more than one block in memory.

A file that begins with UTF-16's byte order mark is UTF-16. In any other a line is what ends with a line feed, and text is
UTF-8; bytes that are not UTF-8 are taken for Windows-1252, which has Latin-1's letters. NUL bytes are where a file system
lost something, and part what is before from what is behind them; one beside every letter is a line of UTF-16 in such a file.
"""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

MAX_LINE_BYTES = 1 << 16
"""Bytes of a line: a longer one is no line of a log."""
_BLOCK = 1 << 20  # bytes, of whole UTF-16 units
_WIDE = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_NULS = re.compile(rb"\0+")
_WINDOWS = {0xDC00 + byte: bytes([byte]).decode("cp1252", "replace") for byte in range(0x80, 0x100)}  # of escaped bytes


def read_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file as UTF-8, as far as they are text, without their line feeds.

    Of a line longer than LONGEST come its first bytes, more than LONGEST of them.
    """
    with path.open("rb") as file:
        block = file.read(_BLOCK)
        encoding = _WIDE.get(block[:2])
        if encoding and 2 * block.count("\n".encode(encoding)) < block.count(b"\n"):
            encoding = None  # only its first line is
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
    """What of a line was written in one go; none: nothing of it is left."""
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
    """A piece as text, without the carriage return of Windows' line ends."""
    piece = piece.rstrip(b"\r")
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return piece.decode("utf-8", "surrogateescape").translate(_WINDOWS)
