"""A file of lines that outlives a full disk."""

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
    """Adds lines to a file. One that cannot be written waits in memory, and is written before the next.

    Args:
        path: the file; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.waiting: list[str] = []
        """Lines that could not be written yet."""
        self._whole: int | None = None  # bytes of whole lines, where half a one may lie behind them

    def append(self, line: str) -> OSError | None:
        """Add a line; why it has to wait, if it has to."""
        self.waiting.append(line + "\n")
        return self._write()

    def append_row(self, row: dict[str, Any]) -> OSError | None:
        """Add a JSON object."""
        return self.append(json.dumps(row, ensure_ascii=False))

    def sync(self) -> None:
        """Bring all lines to the disk.

        Raises:
            OSError: it cannot be done.
        """
        if failure := self._write():
            raise failure
        if self.path.exists():
            with self.path.open("ab") as file:
                sync_file(file)

    def cut_back(self, *, step: int) -> int:
        """Drop the rows after `step`, and a torn last line: the run goes on from there and will write them again.

        Returns:
            how many lines in between could not be read; the file as it was, with them, lies beside it as `….damaged`.
        """
        if not self.path.exists():
            return 0
        kept, lost = _kept(self.path, step=step)
        if lost:
            shutil.copy(self.path, self.path.with_name(f"{self.path.name}.damaged"))
        end = sum(map(len, kept))
        with self.path.open("r+b") as file:
            file.seek(max(0, end - 1))
            if kept and kept[-1].stop == end and file.read(1) == b"\n":  # nothing else lies before it
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
                kept.write(content if content.endswith(b"\n") else content + b"\n")  # the last may lack its end alone
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
                with suppress(OSError):  # then before the next try
                    os.truncate(self.path, self._whole)
            return error
        self._whole = None
        self.waiting.clear()
        return None


def _kept(path: Path, *, step: int) -> tuple[list[range], int]:
    """(the parts of a file of rows that hold those up to a step, how many of its lines cannot be read)."""
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
    """With their ends; a line ends at b"\\n" alone."""
    *whole, rest = block.split(b"\n")
    return [*(line + b"\n" for line in whole), *filter(None, [rest])]


def _last_step_of_rows(block: bytes) -> int | None:
    """The greatest step of many lines, if each is a row as we write it, by counting alone; else None."""
    n = block.count(b"\n")
    as_written = block.endswith(b"}\n") and block.count(b'}\n{"step": ') == n - 1 and b"\0" not in block
    if not as_written or block.count(b"{") != n or block.count(b"}") != n or block.count(b'"') % 2:
        return None
    steps = [_STEP.match(row) for row in block.split(b"{")[1:]]
    return max((int(step[1]) for step in steps if step), default=None) if all(steps) else None


def step_of_row(line: bytes) -> int | None:
    """Of which step a row tells; None if it cannot be read.

    A row as we write it, `{"step": 12, …}`, is not parsed: there may be a million. A line in which something was torn or joined
    is not such a row, and is parsed.
    """
    if (row := _ROW.fullmatch(line)) and line.count(b'"') % 2 == 0:
        return int(row[1])
    try:
        return int(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return None
