"""Append lines to a file, keeping them in memory while the disk is full."""

import json
import os
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from gpt_lightning.durable_files import sync_file

_BLOCK = 1 << 22  # bytes read at once
_STEP = re.compile(rb'"step": (\d{1,18})[,}]')
_ROW = re.compile(rb'\{"step": (\d{1,18})(?:, "[^{}\0]*)?\}\n?')


class JsonlFile:
    """Append lines to a file. A line that cannot be written is kept in memory, and written before the next one.

    Args:
        path: The file; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.waiting: list[str] = []
        """Lines that could not be written yet, each with its newline."""
        self._whole: int | None = None  # size of the complete lines in bytes, if a partial line may follow them

    def append(self, line: str) -> OSError | None:
        """Append a line. Returns the error if the line could not be written and is kept in memory."""
        self.waiting.append(line + "\n")
        return self._write()

    def append_row(self, row: dict[str, Any]) -> OSError | None:
        """Append a JSON object as a line. Returns as `append`."""
        return self.append(json.dumps(row, ensure_ascii=False))

    def sync(self) -> None:
        """Write all lines to disk (fsync).

        Raises:
            OSError: The lines cannot be written.
        """
        if failure := self._write():
            raise failure
        if self.path.exists():
            with self.path.open("ab") as file:
                sync_file(file)

    def cut_back(self, *, step: int) -> int:
        """Remove the rows after `step`, and a torn last line, because a resumed run writes them again.

        Args:
            step: The step from which the run resumes.

        Returns:
            Number of unreadable lines up to `step`. If it is not 0, the original file is kept as `….damaged`.
        """
        if not self.path.exists():
            return 0
        kept, lost = _kept(self.path, step=step)
        if lost:
            shutil.copy(self.path, self.path.with_name(f"{self.path.name}.damaged"))
        end = sum(map(len, kept))
        with self.path.open("r+b") as file:
            file.seek(max(0, end - 1))
            if kept and kept[-1].stop == end and file.read(1) == b"\n":  # the kept rows are contiguous from the start
                file.truncate(end)
                sync_file(file)
                return lost
        self._keep_alone(kept)
        return lost

    def _keep_alone(self, parts: Sequence[range]) -> None:
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        with self.path.open("rb") as file, temporary.open("wb") as kept:
            for part in parts:
                file.seek(part.start)
                content = file.read(len(part))
                kept.write(
                    content if content.endswith(b"\n") else content + b"\n"
                )  # only the last can lack its newline
            sync_file(kept)
        temporary.replace(self.path)

    def _write(self) -> OSError | None:
        if not self.waiting:
            return None
        try:
            if self._whole is not None:
                os.truncate(self.path, self._whole)
            with self.path.open("ab", buffering=0) as file:
                self._whole = os.fstat(file.fileno()).st_size
                content = "".join(self.waiting).encode()
                while content:
                    content = content[file.write(content) :]
        except OSError as error:
            if self._whole is not None:
                with suppress(OSError):  # if this fails, it is done before the next attempt
                    os.truncate(self.path, self._whole)
            return error
        self._whole = None
        self.waiting.clear()
        return None


def _kept(path: Path, *, step: int) -> tuple[list[range], int]:
    """Return (byte ranges of the rows up to a step, number of unreadable lines)."""
    kept: list[range] = []
    lost = begin = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK) + file.readline():
            last = _last_step_of_rows(block)
            all_kept = last is not None and last <= step
            for line in [block] if all_kept else _lines_of(block):
                at = last if all_kept else step_of_row(line)
                end = begin + len(line)
                if at is not None and at <= step:
                    kept.append(range(begin, end))
                elif at is None and line.endswith(b"\n"):
                    lost += 1
                begin = end
    return kept, lost


def _lines_of(block: bytes) -> list[bytes]:
    """Split a block into lines with their newlines; only b"\\n" ends a line."""
    *whole, rest = block.split(b"\n")
    return [*(line + b"\n" for line in whole), *filter(None, [rest])]


def _last_step_of_rows(block: bytes) -> int | None:
    """Return the greatest step of a block if every line is a row as we write it, without parsing it; otherwise None."""
    n = block.count(b"\n")
    as_written = block.endswith(b"}\n") and block.count(b'}\n{"step": ') == n - 1 and b"\0" not in block
    if not as_written or block.count(b"{") != n or block.count(b"}") != n or block.count(b'"') % 2:
        return None
    steps = [_STEP.match(row) for row in block.split(b"{")[1:]]
    return max((int(step[1]) for step in steps if step), default=None) if all(steps) else None


def step_of_row(line: bytes) -> int | None:
    """Return the step of a row; None if the row cannot be read.

    A row as we write it, `{"step": 12, …}`, is not parsed, because there may be a million of them. Any other line, such
    as one that was torn or joined, is parsed.
    """
    if (row := _ROW.fullmatch(line)) and line.count(b'"') % 2 == 0:
        return int(row[1])
    try:
        return int(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return None
