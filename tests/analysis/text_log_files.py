"""Text logs as files, and what is read from them in plain dicts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis.text_logs.log_parser import TextLog, read_logs

Account = tuple[list[dict[str, Any]], list[dict[str, Any]]]


def account_of(log: TextLog) -> Account:
    entries = [
        dict(zip(columns, row, strict=True))
        for columns in log.steps.columns(most=7)
        for row in zip(*columns.values(), strict=True)
    ]
    return entries, [log.samples[step] for step in sorted(log.samples)]


def write(folder: Path, contents: Sequence[bytes]) -> list[Path]:
    """As files of a folder, in this order."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"training_{n}.log" for n in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return paths


def read(folder: Path, *contents: bytes | str) -> TextLog:
    return read_logs(write(folder, [c.encode() if isinstance(c, str) else c for c in contents]))
