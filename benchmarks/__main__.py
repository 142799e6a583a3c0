"""python -m benchmarks [name …]: speed and memory compared with other libraries.

Names: preparation, planning, loading, linear, loss_head, generation, training, evaluation, callback_overhead; without a
name, all. Each measurement has its own process. The contestants of a row take turns, round after round, so that a
machine that slows down slows all of them down. The results are medians over the rounds, and ratios of medians.
"""

import importlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from benchmarks.tables import print_table, read_results, write_results
from benchmarks.write_docs_tables import lines

ROUNDS = 3


def _shape(n_layers: int, d_model: int, n_heads: int, vocab_size: int, max_seq_len: int, batch: int) -> dict[str, int]:
    return {
        "n_layers": n_layers,
        "d_model": d_model,
        "n_heads": n_heads,
        "vocab_size": vocab_size,
        "max_seq_len": max_seq_len,
        "batch": batch,
    }


TRAINING = {
    "L4 d256 V4096 T256 B16": (_shape(4, 256, 4, 4096, 256, 16), 20),
    "L4 d256 V50257 T256 B8": (_shape(4, 256, 4, 50257, 256, 8), 12),
    "124M T512 B1": (_shape(12, 768, 12, 50257, 512, 1), 8),
}
GENERATION = {
    "micro, batch 1": {"model": "micro", "batch": 1, "new_tokens": 200},
    "124M, batch 1": {"model": "gpt2_124m", "batch": 1, "new_tokens": 64},
    "124M, batch 8": {"model": "gpt2_124m", "batch": 8, "new_tokens": 64},
}
LINEAR = ((1, 768, 3072), (1, 768, 50257), (8, 768, 3072), (8, 768, 50257), (166, 256, 50257))
PRECISIONS = ("32-true", "bf16-mixed")
PREPARATION = (32, 128)  # megabytes of text
LOADING = {"tokens": 40_000_000, "max_seq_len": 1024, "batch": 32, "steps": 1_000_001, "seconds": 4}


def rows(benchmark: str) -> Iterator[tuple[str, list[str], dict[str, Any]]]:
    """(name of the row, contestants, arguments) of a benchmark."""
    if benchmark == "training":
        for name, (shape, steps) in TRAINING.items():
            for precision in PRECISIONS:
                arguments = {"shape": shape, "precision": precision, "steps": steps}
                yield f"{name}, {precision}", ["ours", "transformers", "litgpt"], arguments
    elif benchmark == "loss_head":
        for precision in PRECISIONS:
            arguments = {"vocab_size": 50257, "d_model": 256, "tokens": 4096, "precision": precision}
            yield f"V50257 d256, 4,096 tokens, {precision}", ["ours", "torch"], arguments
    elif benchmark == "preparation":
        workers = len(os.sched_getaffinity(0))
        for mb in PREPARATION:
            yield f"{mb} MB of text, {workers} cores", ["ours", "tiktoken", "litdata"], {"mb": mb, "workers": workers}
    elif benchmark == "loading":
        name = "2 x 40 M tokens, T 1,024, batch 32, 1,000,001 steps"
        yield name, ["ours", "bare", "litdata", "mosaicml-streaming"], LOADING
    elif benchmark == "evaluation":
        records = os.environ.get("HELLASWAG", "data/hellaswag.jsonl")
        if not Path(records).is_file():
            print(f"evaluation: skipped, because {records} does not exist: set HELLASWAG=… to the validation records")
            return
        yield "HellaSwag, 1,000 records", ["ours", "lm-evaluation-harness"], {"records": records, "limit": 1000}
    elif benchmark == "callback_overhead":
        yield "quickstart, all callbacks", ["ours"], {"steps": 80}
    elif benchmark == "planning":
        yield "10^6 steps of 512 sequences, 20 sources", ["ours"], {"steps": 10**6, "global_batch": 512, "sources": 20}
    elif benchmark == "linear":
        for tokens, d_in, d_out in LINEAR:
            arguments = {"tokens": tokens, "d_in": d_in, "d_out": d_out}
            yield f"{tokens} x {d_in} by {d_in} x {d_out}", ["ours", "torch"], arguments
    else:
        for name, arguments in GENERATION.items():
            yield name, ["ours", "transformers"], arguments


def run(benchmark: str) -> list[dict[str, Any]]:
    """Measure every row of a benchmark."""
    table = []
    for name, contestants, arguments in rows(benchmark):
        measured: dict[str, list[dict[str, Any]]] = {who: [] for who in contestants}
        for number in range(ROUNDS):
            for who in contestants:
                print(f"{benchmark}: {name}, round {number + 1} of {ROUNDS}: {who}      ", end="\r", flush=True)
                measured[who].append(_in_a_process(benchmark, who, arguments))
        row: dict[str, Any] = {"row": name} | {who: _median(results) for who, results in measured.items()}
        if "ids" in row["ours"]:
            ids = row["ours"].pop("ids")
            row["different_ids"] = len({token_id for answer in ids for token_id in answer})
            row["same_ids"] = ids == row["transformers"].pop("ids")
        table.append(row)
        print_table(lines(benchmark, table[-1:]))
    return table


def _in_a_process(benchmark: str, who: str, arguments: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks", "measure", benchmark, who, json.dumps(arguments)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        sys.exit(f"{benchmark} of {who} failed:\n{finished.stderr}")
    answer: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return answer


def _median(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of numbers; ids must be the same in every round and are returned once."""
    assert all(result.get("ids") == results[0].get("ids") for result in results)
    first = results[0]
    return {
        key: statistics.median(result[key] for result in results) if isinstance(value, int | float) else value
        for key, value in first.items()
    }


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["measure"]:
        benchmark, who, given = arguments[1:]
        measure = importlib.import_module(f"benchmarks.{benchmark}").measure
        print("\n" + json.dumps(measure(who, **json.loads(given))))
        return
    chosen = arguments or [
        "preparation",
        "planning",
        "loading",
        "linear",
        "loss_head",
        "generation",
        "training",
        "evaluation",
        "callback_overhead",
    ]
    tables = {benchmark: table for benchmark in chosen if (table := run(benchmark))}
    for benchmark, table in tables.items():
        print_table(lines(benchmark, table))
    results = {benchmark: {"machine": describe("cpu"), "rows": table} for benchmark, table in tables.items()}
    path = write_results("cpu", read_results("cpu") | results)
    print(f"written to {path}; python -m benchmarks.write_docs_tables updates docs/speed.md")


if __name__ == "__main__":
    main(sys.argv[1:])
