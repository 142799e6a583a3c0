"""python -m benchmarks.report: the results as the tables of the README."""

import json
from pathlib import Path
from typing import Any

from benchmarks import gpu
from benchmarks.tables import Lines, markdown_table

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- benchmarks: made by python -m benchmarks.report -->\n", "<!-- end of benchmarks -->\n"
TITLES = {"training": "training step", "loss_head": "loss head, forward and backward"}


def lines(benchmark: str, rows: list[dict[str, Any]]) -> Lines:
    """The table of a benchmark on a CPU."""
    return _generation(rows) if benchmark == "generation" else _time_and_memory(TITLES[benchmark], rows)


def _time_and_memory(title: str, rows: list[dict[str, Any]]) -> Lines:
    ours, *peers = (who for who in rows[0] if who != "row")
    return [
        [title, ours, *peers, "speed against the fastest", "memory against the leanest"],
        *(
            [
                row["row"],
                *(f"{row[who]['ms']:,.0f} ms, {row[who]['mb']:,.0f} MB" for who in (ours, *peers)),
                f"{min(row[who]['ms'] for who in peers) / row[ours]['ms']:.2f} x",
                f"{row[ours]['mb'] / min(row[who]['mb'] for who in peers):.2f} x",
            ]
            for row in rows
        ),
    ]


def _generation(rows: list[dict[str, Any]]) -> Lines:
    return [
        ["greedy generation, fp32", "ours", "transformers", "speed", "of the memory's bandwidth", "same tokens"],
        *(
            [
                row["row"],
                *(
                    f"{row[who]['tokens_per_second']:,.1f} tokens/s, {row[who]['mb']:,.0f} MB"
                    for who in ("ours", "transformers")
                ),
                f"{row['ours']['tokens_per_second'] / row['transformers']['tokens_per_second']:.2f} x",
                f"{row['ours']['share_of_bandwidth']:.2f}",
                f"{'yes' if row['same_ids'] else 'no'}, {row['different_ids']} different",
            ]
            for row in rows
        ),
    ]


def markdown() -> str:
    """All results, for the README."""
    on_cpu = _read(RESULTS / "cpu.json")
    parts = [markdown_table(lines(name, result["rows"]), result["machine"]) for name, result in on_cpu.items()]
    on_gpus = [_read(path) for path in sorted(RESULTS.glob("gpu_*.json"))]
    parts += [markdown_table(gpu.lines(result["rows"]), result["machine"]) for result in on_gpus]
    return "\n".join(parts if on_gpus else [*parts, markdown_table(gpu.lines(gpu.NOT_MEASURED), None)])


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def main() -> None:
    """Replace what stands between the two marks in the README."""
    path = ROOT / "README.md"
    before, rest = path.read_text(encoding="utf-8").split(BEGIN)
    path.write_text(before + BEGIN + "\n" + markdown() + "\n" + END + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
