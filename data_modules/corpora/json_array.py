"""Read the elements of a JSON array from a file, one at a time."""

import io
import json
from collections.abc import Iterator
from typing import Any

from data_modules.corpora.corpus import BadRecord, UnreadableFile

_BLANK = " \t\r\n"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | BadRecord:
    """Return a JSON object, or a BadRecord if it has a duplicate key."""
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    twice = next(key for n, (key, _) in enumerate(pairs) if key in dict(pairs[:n]))
    return BadRecord(f"it has the field {twice!r} twice")


JSON = json.JSONDecoder(object_pairs_hook=_object)


def array_elements(text: io.TextIOBase, *, limit: int, at_once: int) -> Iterator[tuple[int, Any, int]]:
    """Yield (number of the first line, value, number of characters) of each element of a JSON array.

    Args:
        text: The stream; the array is its whole content.
        limit: Maximum number of characters of an element. Reading stops at a longer element.
        at_once: Number of characters to read at a time.

    Raises:
        UnreadableFile: The array is malformed, or an element is too long.
    """
    buffer, position, line = "", 0, 1

    def next_sign() -> str:
        """Skip blanks, reading more text if necessary. Returns the next character; empty at the end of the file."""
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
                more = text.read(max(at_once, size)) if size <= limit else ""  # doubles each time
                if not more:
                    what = f"longer than {limit / 1e6:,.1f} MB, or not JSON" if size > limit else "not JSON"
                    why = getattr(error, "msg", error)
                    raise UnreadableFile(f"line {line} (record {done + 1}): it is {what} ({why})") from error
                buffer, position = buffer[position:] + more, 0
        yield line, value, end - position
        line += buffer.count("\n", position, end)
        position, done = end, done + 1
    position += 1
    if next_sign():
        raise UnreadableFile(f"line {line}: there is more text after the end of the array")
