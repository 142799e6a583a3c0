"""The elements of a JSON array in a file, of which one at a time is held."""

import io
import json
from collections.abc import Iterator
from typing import Any

from data_modules.corpora.corpus import BadRecord, UnreadableFile

_BLANK = " \t\r\n"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | BadRecord:
    """A JSON object; in its place a BadRecord if it has a key twice."""
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    twice = next(key for n, (key, _) in enumerate(pairs) if key in dict(pairs[:n]))
    return BadRecord(f"has the field {twice!r} twice")


JSON = json.JSONDecoder(object_pairs_hook=_object)


def array_elements(text: io.TextIOBase, *, limit: int, at_once: int) -> Iterator[tuple[int, Any, int]]:
    """(line where it begins, value, characters) of each element of the array that is all of a text.

    Args:
        limit: characters of an element; of a longer one that is not read yet, the end is not looked for.
        at_once: characters to read.

    Raises:
        UnreadableFile: the array is malformed, or an element too long.
    """
    buffer, position, line = "", 0, 1

    def next_sign() -> str:
        """Move past blanks, reading on where the buffer ends; the sign after them, none at the file's end."""
        nonlocal buffer, position, line
        while True:
            start = position
            while position < len(buffer) and buffer[position] in _BLANK:
                position += 1
            line += buffer.count("\n", start, position)
            if position < len(buffer):
                return buffer[position]
            buffer, position = text.read(at_once), 0
            if not buffer:
                return ""

    next_sign()  # the opening bracket
    position += 1
    done = 0
    while (sign := next_sign()) != "]":
        if not sign:
            raise UnreadableFile(f"line {line}: the file ends inside its array, after record {done}")
        if done:
            if sign != ",":
                raise UnreadableFile(f"line {line}: a comma is missing after record {done}")
            position += 1
            next_sign()
        while True:
            try:
                value, end = JSON.raw_decode(buffer, position)
                break
            except (ValueError, RecursionError) as error:
                size = len(buffer) - position
                more = text.read(max(at_once, size)) if size <= limit else ""  # twice as much each time
                if not more:
                    what = f"longer than {limit / 1e6:,.1f} MB, or not JSON" if size > limit else "not JSON"
                    why = getattr(error, "msg", error)
                    raise UnreadableFile(f"line {line} (record {done + 1}): is {what} ({why})") from error
                buffer, position = buffer[position:] + more, 0
        yield line, value, end - position
        line += buffer.count("\n", position, end)
        position, done = end, done + 1
    position += 1
    if next_sign():
        raise UnreadableFile(f"line {line}: there is more after the array's end")
