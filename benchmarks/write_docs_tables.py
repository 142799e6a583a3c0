"""python -m benchmarks.write_docs_tables: write the results as tables into docs/speed.md."""

from typing import Any

from benchmarks.gpu_day import table as gpu_day
from benchmarks.gpu_day.result_rows import read_rows
from benchmarks.tables import RESULTS, ROOT, Lines, markdown_table, put_into, read_results

BEGIN, END = "<!-- benchmarks: made by python -m benchmarks.write_docs_tables -->\n", "<!-- end of benchmarks -->\n"
TITLES = {
    "linear": "matrix product without gradients, fp32",
    "loss_head": "loss head, forward and backward",
    "training": "training step",
}


def lines(benchmark: str, rows: list[dict[str, Any]]) -> Lines:
    """The table of a benchmark on a CPU."""
    tables = {
        "evaluation": _evaluation,
        "generation": _generation,
        "loading": _loading,
        "planning": _planning,
        "preparation": _preparation,
        "callback_overhead": _callback_overhead,
    }
    return tables[benchmark](rows) if benchmark in tables else _time_and_memory(TITLES[benchmark], rows)


def _time_and_memory(title: str, rows: list[dict[str, Any]]) -> Lines:
    ours, *peers = (who for who in rows[0] if who != "row")
    return [
        [title, ours, *peers, "speed relative to the fastest other", "memory relative to the smallest other"],
        *(
            [
                row["row"],
                *(f"{_significant(row[who]['ms'])} ms, {row[who]['mb']:,.0f} MB" for who in (ours, *peers)),
                f"{min(row[who]['ms'] for who in peers) / row[ours]['ms']:.2f} x",
                f"{row[ours]['mb'] / min(row[who]['mb'] for who in peers):.2f} x",
            ]
            for row in rows
        ),
    ]


def _significant(ms: float) -> str:
    return f"{ms:,.0f}" if ms >= 100 else f"{ms:.3g}"


def _generation(rows: list[dict[str, Any]]) -> Lines:
    return [
        ["greedy generation, fp32", "ours", "transformers", "speed", "fraction of memory bandwidth", "same tokens"],
        *(
            [
                row["row"],
                *(
                    f"{row[who]['tokens_per_second']:,.1f} tokens/s, {row[who]['mb']:,.0f} MB"
                    for who in ("ours", "transformers")
                ),
                f"{row['ours']['tokens_per_second'] / row['transformers']['tokens_per_second']:.2f} x",
                f"{row['ours']['share_of_bandwidth']:.2f}",
                f"{'yes' if row['same_ids'] else 'no'} ({row['different_ids']} distinct ids)",
            ]
            for row in rows
        ),
    ]


def _preparation(rows: list[dict[str, Any]]) -> Lines:
    contestants = ("ours", "tiktoken", "litdata")
    return [
        ["preparation", "ours", "tiktoken, in memory", "litdata", "relative to tiktoken", "relative to litdata"],
        *(
            [
                row["row"],
                *(
                    f"{row[who]['tokens_per_second'] / 1e6:,.2f} M tokens/s, {row[who]['mb']:,.0f} MB"
                    for who in contestants
                ),
                *(
                    f"{row['ours']['tokens_per_second'] / row[who]['tokens_per_second']:.2f} x"
                    for who in contestants[1:]
                ),
            ]
            for row in rows
        ),
    ]


def _loading(rows: list[dict[str, Any]]) -> Lines:
    peers = ("bare", "litdata", "mosaicml-streaming")
    return [
        [
            "loading, M tokens/s",
            "ours",
            *peers,
            *(f"relative to {who}" for who in peers),
            "first batch",
            "resume at the last step",
        ],
        *(
            [
                row["row"],
                *(f"{row[who]['tokens_per_second'] / 1e6:,.1f}" for who in ("ours", *peers)),
                *(f"{row['ours']['tokens_per_second'] / row[who]['tokens_per_second']:.2f} x" for who in peers),
                *(f"{_significant(row['ours'][key])} ms" for key in ("first_batch_ms", "resumed_batch_ms")),
            ]
            for row in rows
        ),
    ]


def _planning(rows: list[dict[str, Any]]) -> Lines:
    return [
        ["planning a run", "seconds", "memory"],
        *([row["row"], f"{row['ours']['seconds']:.2f} s", f"{row['ours']['mb']:,.0f} MB"] for row in rows),
    ]


def _evaluation(rows: list[dict[str, Any]]) -> Lines:
    return [
        ["zero-shot, two cores", "ours", "lm-evaluation-harness", "speed"],
        *(
            [
                row["row"],
                *(
                    f"{row[who]['tokens_per_second']:,.0f} scored tokens/s, {row[who]['seconds']:,.1f} s"
                    for who in ("ours", "lm-evaluation-harness")
                ),
                f"{row['ours']['tokens_per_second'] / row['lm-evaluation-harness']['tokens_per_second']:.2f} x",
            ]
            for row in rows
        ),
    ]


def _callback_overhead(rows: list[dict[str, Any]]) -> Lines:
    return [
        ["callbacks", "time per step", "of which callbacks", "share"],
        *(
            [
                row["row"],
                f"{_significant(row['ours']['ms'])} ms",
                f"{_significant(row['ours']['callbacks_ms'])} ms",
                f"{row['ours']['callbacks_ms'] / row['ours']['ms']:.2%}",
            ]
            for row in rows
        ),
    ]


def markdown() -> str:
    """All results, for docs/speed.md."""
    on_cpu = read_results("cpu")
    parts = [markdown_table(lines(name, result["rows"]), result["machine"]) for name, result in on_cpu.items()]
    on_gpus = [read_rows(path) for path in sorted(RESULTS.glob("gpu_day_*.jsonl"))]
    parts += [markdown_table(gpu_day.lines(rows), gpu_day.machine(rows)) for rows in on_gpus]
    return "\n".join(parts if on_gpus else [*parts, markdown_table(gpu_day.NOT_MEASURED, None)])


def main() -> None:
    """Replace the tables between the two marks in docs/speed.md."""
    put_into(ROOT / "docs" / "speed.md", BEGIN, END, markdown())


if __name__ == "__main__":
    main()
