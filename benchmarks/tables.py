"""Results as tables, for a terminal and for the docs.

A table is a list of lines, each a list of cells; the first is the head.
"""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
Lines = list[list[str]]


def print_table(lines: Lines) -> None:
    """Print a table with right-aligned numbers."""
    head, *body = lines
    table = Table(*head, box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for line in body:
        table.add_row(*line)
    Console(highlight=False, width=160).print(table)


def markdown_table(lines: Lines, machine: dict[str, Any] | None) -> str:
    """A Markdown table, with the machine below it."""
    head, *body = lines
    text = f"| {' | '.join(head)} |\n| --- |{' ---: |' * (len(head) - 1)}\n"
    text += "".join(f"| {' | '.join(line)} |\n" for line in body)
    if machine is not None:
        versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
        text += f"\n{machine['device']}; {versions}; commit {machine['commit']}.\n"
    return text


def put_into(page: Path, begin: str, end: str, text: str) -> None:
    """Replace the text between two lines of a page."""
    before, rest = page.read_text(encoding="utf-8").split(begin)
    page.write_text(f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}", encoding="utf-8")


def write_results(name: str, content: dict[str, Any]) -> Path:
    """Write benchmarks/results/<name>.json, and return its path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def read_results(name: str) -> dict[str, Any]:
    """The content that `write_results` wrote; empty if the file does not exist."""
    path = RESULTS / f"{name}.json"
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return content
