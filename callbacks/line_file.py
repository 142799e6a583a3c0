"""A file of lines that outlives a full disk."""

import json
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from gpt_lightning.on_disk import sync

_ROW = re.compile(rb'\{"step": (\d{1,18})(?:, "[^{}\0]*)?\}\n?')


class LineFile:
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
                sync(file)

    def cut_back(self, *, step: int) -> int:
        """Drop the rows after `step`, and a torn last line: the run goes on from there and will write them again.

        Returns:
            how many lines in between could not be read; the file as it was, with them, lies beside it as `….damaged`.
        """
        if not self.path.exists():
            return 0
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        lost = 0
        with self.path.open("rb") as lines, temporary.open("wb") as kept:
            for line in lines:  # a line ends at b"\n" alone; splitlines cuts at U+2028 too
                at = step_of_row(line)
                if at is not None and at <= step:
                    kept.write(line if line.endswith(b"\n") else line + b"\n")  # the last may lack its end alone
                elif at is None and line.endswith(b"\n"):
                    lost += 1
            sync(kept)
        if lost:
            shutil.copy(self.path, self.path.with_name(f"{self.path.name}.damaged"))
        temporary.replace(self.path)
        return lost

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
