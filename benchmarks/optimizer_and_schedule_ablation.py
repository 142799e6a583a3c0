"""python -m benchmarks.optimizer_and_schedule_ablation: the effect of optimizer and schedule, each at its own best learning rate.

Trains on the quickstart's data for fewer steps, with one thing changed at a time and all together, at every learning
rate with every seed; each line has the same number of trials. Finished runs are not repeated, so it can be stopped and
started again. `python -m benchmarks.optimizer_and_schedule_ablation 1/2` trains every second run. Without such a part, the
table of docs/recipes/optimizers.md is written.
"""

import json
import statistics
import subprocess
import sys
from itertools import product
from typing import Any

from benchmarks.machine import describe
from benchmarks.tables import ROOT, Lines, markdown_table, put_into, read_results, write_results

RUNS = ROOT / "runs" / "recipes"
STEPS, SEEDS, RATES = 200, (1, 2), ("2e-3", "4e-3", "8e-3")
BEGIN, END = "<!-- made by python -m benchmarks.optimizer_and_schedule_ablation -->\n", "<!-- end of recipes -->\n"
RECIPES: dict[str, list[str]] = {
    "micro, AdamW, cosine": [],
    "linear": ["schedule=linear"],
    "WSD": ["schedule=wsd"],
    "constant": ["schedule=constant"],
    "Muon": ["optimizer=muon"],
    "Muon, WSD": ["optimizer=muon", "schedule=wsd"],
}


def measure(recipe: str, rate: str, seed: int) -> float:
    """Mean validation loss in nats of one run, which is trained unless it is finished."""
    name = f"{list(RECIPES).index(recipe):02d}_{rate}_seed{seed}"
    command = [
        *(sys.executable, "train.py", "experiment=quickstart", f"name={name}", f"runs_dir={RUNS}", f"seed={seed}"),
        *(f"optimizer.lr={rate}", f"max_steps={STEPS}", f"val_every={STEPS}", f"callbacks.samples.every={STEPS}"),
        *RECIPES[recipe],
    ]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if finished.returncode:
        sys.exit(f"{recipe}: {finished.stderr}")
    rows = [json.loads(line) for line in (RUNS / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return float([row["val/loss/mean"] for row in rows if "val/loss/mean" in row][-1])


def main() -> None:
    """Train the runs; without a part, write the table."""
    part, _, parts = (sys.argv[1] if sys.argv[1:] else "1/1").partition("/")
    results: dict[str, dict[str, list[float]]] = {recipe: {rate: [] for rate in RATES} for recipe in RECIPES}
    for number, (seed, recipe, rate) in enumerate(product(SEEDS, RECIPES, RATES)):
        if number % int(parts) == int(part) - 1:
            results[recipe][rate].append(measure(recipe, rate, seed))
            print(f"seed {seed}, {recipe}, lr {rate}: {results[recipe][rate][-1]:.4f}", flush=True)
    if parts == "1":
        write_results("recipes", {"machine": describe("cpu"), "steps": STEPS, "results": results})
        put_into(ROOT / "docs" / "recipes" / "optimizers.md", BEGIN, END, markdown())


def markdown() -> str:
    """The table of docs/recipes/optimizers.md."""
    content = read_results("recipes")
    return markdown_table(_lines(content["results"]), content["machine"])


def _lines(results: dict[str, Any]) -> Lines:
    plain, *_ = (losses for _, losses in map(_best, results.values()))
    lines = [["recipe", *(f"lr {rate}" for rate in RATES), "best, difference from the first row, seed by seed"]]
    for recipe, of_rates in results.items():
        best, losses = _best(of_rates)
        means = {rate: statistics.mean(of_rate) for rate, of_rate in of_rates.items()}
        cells = [f"**{mean:.4f}**" if rate == best else f"{mean:.4f}" for rate, mean in means.items()]
        differences = [loss - other for loss, other in zip(losses, plain, strict=True)]
        spread = statistics.stdev(differences) / len(differences) ** 0.5
        effect = "" if losses == plain else f"{statistics.mean(differences):+.4f} ± {spread:.4f}"
        lines.append([recipe, *cells, effect])
    return lines


def _best(of_rates: dict[str, list[float]]) -> tuple[str, list[float]]:
    """The learning rate with the lowest mean loss, and its losses."""
    return min(of_rates.items(), key=lambda item: statistics.mean(item[1]))


if __name__ == "__main__":
    main()
