"""python -m benchmarks.report: the results as the tables of the README."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- benchmarks: made by python -m benchmarks.report -->\n", "<!-- end of benchmarks -->\n"
TITLES = {
    "training": "training step",
    "loss_head": "loss head, forward and backward",
    "generation": "greedy generation, fp32",
}


def cells(benchmark: str, rows: Iterable[dict[str, Any]]) -> list[list[str]]:
    """A benchmark's table as text, its head first."""
    if benchmark == "generation":
        head = [
            "ours",
            "transformers",
            "ratio",
            "of the memory's bandwidth",
            "peak memory",
            "of transformers",
            "same tokens",
        ]
        return [
            [TITLES[benchmark], *head],
            *(
                [
                    row["row"],
                    f"{row['ours']['tokens_per_second']:.1f} tokens/s",
                    f"{row['transformers']['tokens_per_second']:.1f}",
                    f"{row['ours']['tokens_per_second'] / row['transformers']['tokens_per_second']:.2f} x",
                    f"{row['ours']['share_of_bandwidth']:.2f}",
                    f"{row['ours']['mb']:,.0f} MB",
                    f"{row['transformers']['mb']:,.0f} MB",
                    "yes" if row["same_ids"] else "no",
                ]
                for row in rows
            ),
        ]
    rows = list(rows)
    peers = [who for who in rows[0] if who not in ("row", "ours")]
    return [
        [TITLES[benchmark], "ours", *peers, "speed against the fastest", "peak memory", "against the leanest"],
        *(
            [
                row["row"],
                f"{row['ours']['ms']:,.0f} ms",
                *(f"{row[who]['ms']:,.0f}" for who in peers),
                f"{min(row[who]['ms'] for who in peers) / row['ours']['ms']:.2f} x",
                f"{row['ours']['mb']:,.0f} MB",
                f"{row['ours']['mb'] / min(row[who]['mb'] for who in peers):.2f} x",
            ]
            for row in rows
        ),
    ]


def print_tables(tables: dict[str, list[dict[str, Any]]]) -> None:
    """Each benchmark's rows, for a terminal."""
    console = Console(highlight=False, width=160)
    for benchmark, rows in tables.items():
        head, *body = cells(benchmark, rows)
        table = Table(*head, box=None, pad_edge=False)
        for column in table.columns[1:]:
            column.justify = "right"
        for line in body:
            table.add_row(*line)
        console.print(table)


def markdown() -> str:
    """All results, for the README."""
    parts = []
    for benchmark, result in json.loads((RESULTS / "cpu.json").read_text(encoding="utf-8")).items():
        head, *body = cells(benchmark, result["rows"])
        parts.append(f"| {' | '.join(head)} |\n| --- |{' ---: |' * (len(head) - 1)}\n")
        parts += [f"| {' | '.join(line)} |\n" for line in body]
        machine = result["machine"]
        versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
        parts.append(f"\n{machine['device']}; {versions}; commit {machine['commit']}.\n\n")
    return "".join(parts)


def main() -> None:
    """Replace what stands between the two marks in the README."""
    path = ROOT / "README.md"
    before, rest = path.read_text(encoding="utf-8").split(BEGIN)
    path.write_text(before + BEGIN + "\n" + markdown() + END + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
