"""python -m benchmarks.study_optimizer: how many tokens the modern recipe needs to reach AdamW's final loss.

Writes the tables of docs/explanation/study.md.

Both recipes get the same number of trials of their learning rate, with one seed. At its best rate each is trained with
three seeds, and the modern one also for shorter runs, each with its whole schedule. Finished runs are not repeated, so
it can be stopped and started again.
"""

import math
import statistics
import subprocess
import sys
from collections.abc import Sequence

import numpy as np

from analysis.comparison import find_runs, read_runs
from analysis.comparison.run import Run
from benchmarks.machine import trained_on
from benchmarks.tables import ROOT, Lines, markdown_table, print_table, put_into
from gpt_lightning import load_model
from gpt_lightning.optim import parameter_groups

RUNS, PAGE = ROOT / "runs" / "study_optimizer", ROOT / "docs" / "explanation" / "study.md"
BEGIN, END = "<!-- made by python -m benchmarks.study_optimizer -->\n", "<!-- end of study_optimizer -->\n"
RECIPES = {"quickstart": "AdamW, cosine, micro", "modern_micro": "experiment=modern_micro"}
RATES, SEEDS, STEPS, SHORTER = ("2e-3", "4e-3", "8e-3", "16e-3"), (1, 2, 3), 300, (100, 125, 150, 200)


def sweep(name: str, steps: int, *axes: str) -> list[Run]:
    """The runs of a sweep, which are trained unless they are finished."""
    rare = [
        f"{key}={steps}" for key in ("max_steps", "val_every", "callbacks.samples.every", "callbacks.checkpoints.every")
    ]
    command = [sys.executable, "train.py", "-m", *axes, *rare, f"sweep_dir={RUNS / name}", "jobs_at_once=2"]
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        sys.exit(f"{name} is not finished: run the same command again to continue.")
    return list(read_runs(find_runs(str(RUNS / name)).runs))


def loss(run: Run) -> float:
    """Final validation loss, mean of the sources, in nats."""
    return float(run.final["val/loss/mean"])


def of(runs: Sequence[Run], experiment: str) -> list[Run]:
    """The runs of a recipe."""
    return [run for run in runs if run.path.name.startswith(f"experiment={experiment},")]


def spread(losses: Sequence[float]) -> str:
    """Mean ± standard deviation of losses, as text."""
    return f"{statistics.mean(losses):.4f} ± {statistics.stdev(losses):.4f}"


def main() -> None:
    """Train missing runs, print the tables and write them into the page."""
    trials = sweep("rates", STEPS, f"experiment={','.join(RECIPES)}", f"optimizer.lr={','.join(RATES)}", "seed=1")
    tuned: Lines = [["recipe", *(f"lr {rate}" for rate in RATES), "FLOPs per token", "extra optimizer FLOPs per token"]]
    results: Lines = [
        ["recipe", "lr", "steps", "tokens", f"loss, {len(SEEDS)} seeds", "difference from AdamW, seed by seed"]
    ]
    adamw: list[float] = []
    reached: list[tuple[int, list[float]]] = []  # (tokens, loss of each seed less AdamW's)
    trained = [run.path for run in trials]
    for experiment, title in RECIPES.items():
        mine = sorted(of(trials, experiment), key=lambda run: run.settings["optimizer.lr"])
        best = min(mine, key=loss)
        rate = f"{best.settings['optimizer.lr']:g}"
        cells = [f"**{loss(run):.4f}**" if run is best else f"{loss(run):.4f}" for run in mine]
        tuned.append([title, *cells, f"{best.flops_per_token / 1e6:.2f} M", f"{muon_flops(best) / 1e6:.2f} M"])
        for steps in (STEPS,) if experiment == "quickstart" else (*SHORTER, STEPS):
            seeds = "seed=" + ",".join(map(str, SEEDS))
            runs = sweep(f"{experiment}_{steps}", steps, f"experiment={experiment}", f"optimizer.lr={rate}", seeds)
            losses = [loss(run) for run in sorted(runs, key=lambda run: int(run.seed))]
            tokens = runs[0].steps * runs[0].tokens_per_step
            adamw = adamw or losses
            differences = [mine - other for mine, other in zip(losses, adamw, strict=True)]
            told = (
                "" if losses is adamw else f"{statistics.mean(differences):+.4f} ± {statistics.stdev(differences):.4f}"
            )
            results.append([title, rate, str(steps), f"{tokens / 1e6:.3f} M", spread(losses), told])
            if experiment != "quickstart":
                reached.append((tokens, differences))
            trained += [run.path for run in runs]
    said = where_it_is_reached(reached)
    print_table(tuned)
    print_table(results)
    print(said)
    text = f"{markdown_table(tuned, None)}\n{markdown_table(results, trained_on(trained))}\n{said}"
    put_into(PAGE, BEGIN, END, text)


def where_it_is_reached(reached: Sequence[tuple[int, list[float]]]) -> str:
    """A sentence on the tokens that reach AdamW's final loss, for each seed, interpolated between run lengths.

    Args:
        reached: (tokens, loss of each seed minus AdamW's of the same seed); the last entry has as many tokens as AdamW.
    """
    logs, whole = [math.log(tokens) for tokens, _ in reached], reached[-1][0]
    shares = []
    for differences in np.array([of_seeds for _, of_seeds in reached]).T:
        below = np.flatnonzero(differences <= 0)
        if not len(below) or below[0] == 0:
            return "AdamW's final loss does not lie between the lengths that were trained, for every seed."
        n = int(below[0])
        part = differences[n - 1] / (differences[n - 1] - differences[n])
        shares.append(math.exp(logs[n - 1] + part * (logs[n] - logs[n - 1])) / whole)
    told = ", ".join(f"{share:.0%}" for share in shares)
    return (
        f"AdamW's final loss is reached at {statistics.mean(shares):.0%} of its tokens (seed by seed {told}): "
        "interpolated between two run lengths, linearly in the logarithm of the tokens."
    )


def muon_flops(run: Run) -> float:
    """FLOPs per token of orthogonalisation: five times 4 m² n + 2 m³ for an m x n matrix, m <= n."""
    flops = 0
    if str(run.settings["optimizer._target_"]).endswith("MuonAdamW"):
        for group in parameter_groups(load_model(run.path), muon=True):
            for weight in group["params"] if group.get("muon") else ():
                for matrix in weight.split(group.get("stacked") or [len(weight)]):
                    m, n = sorted(matrix.shape)
                    flops += 5 * (4 * m * m * n + 2 * m**3)
    return flops / run.tokens_per_step


if __name__ == "__main__":
    main()
