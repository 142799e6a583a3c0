"""Tables, for a terminal and for the README. A table is its lines, each a list of cells; the first is the head."""

from typing import Any

from rich.console import Console
from rich.table import Table

Lines = list[list[str]]


def print_table(lines: Lines) -> None:
    """Numbers stand to the right."""
    head, *body = lines
    table = Table(*head, box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for line in body:
        table.add_row(*line)
    Console(highlight=False, width=160).print(table)


def markdown_table(lines: Lines, machine: dict[str, Any] | None) -> str:
    """A table, and below it what it was measured on."""
    head, *body = lines
    text = f"| {' | '.join(head)} |\n| --- |{' ---: |' * (len(head) - 1)}\n"
    text += "".join(f"| {' | '.join(line)} |\n" for line in body)
    if machine is not None:
        versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
        text += f"\n{machine['device']}; {versions}; commit {machine['commit']}.\n"
    return text
