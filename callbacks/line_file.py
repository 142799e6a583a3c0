"""A file of lines that outlives a full disk."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from gpt_lightning.on_disk import sync


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

    def cut_back(self, *, step: int) -> None:
        """Drop the rows after `step`, and a torn last line: the run goes on from there and will write them again."""
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").split(
            "\n"
        ):  # splitlines cuts at U+2028 too
            try:
                row = json.loads(line)
            except ValueError:
                break
            if row["step"] > step:
                break
            kept.append(line + "\n")
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        with temporary.open("w", encoding="utf-8") as file:
            file.writelines(kept)
            sync(file)
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
