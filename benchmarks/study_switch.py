"""python -m benchmarks.study_switch: what a switch of the mix costs and what reduces the cost.

Writes the tables and the plot of docs/explanation/study.md.

Reads the runs of `python train.py -m experiment=study_switch`. Differences in parentheses are to the abrupt switch,
seed by seed. ≠ means that a difference is larger than the noise between seeds, for all pairs of curricula together
(analysis/comparison/tukey_test.py); ≈ means that it is not.
"""

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np

from analysis.comparison.tukey_test import AdditiveNoiseModel
from analysis.plot_colours import COLOURS
from benchmarks.machine import trained_on
from benchmarks.tables import ROOT, Lines, markdown_table, print_table, put_into
from gpt_lightning.jsonl_reader import read_rows

RUNS, PAGE = ROOT / "runs" / "study_switch", ROOT / "docs" / "explanation" / "study.md"
BEGIN, END = "<!-- made by python -m benchmarks.study_switch -->\n", "<!-- end of study_switch -->\n"
SWITCHES = {"static": 600, "abrupt": 600, "ramp": 500, "abrupt_replay": 500, "ramp_replay": 400}
"""Last step of the base mix in each curriculum. The static curriculum has no switch and uses the abrupt one's step."""
BASE, TARGET = ("readmes", "stdlib"), ("pydoc", "docstrings")
SEEDS = (1, 2, 3)
BEFORE = 100  # steps before the switch whose median norm is the reference

Rows = Sequence[Mapping[str, float]]


class Switched(NamedTuple):
    """A run of the study."""

    curriculum: str
    seed: int
    rows: Rows

    def losses(self, sources: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(steps, mean validation loss of some sources)."""
        rows = [row for row in self.rows if "val/loss/mean" in row]
        means = [statistics.mean(row[f"val/loss/{source}"] for source in sources) for row in rows]
        return np.array([row["step"] for row in rows]), np.array(means)

    def final(self, *sources: str) -> float:
        """Final validation loss in nats."""
        return float(self.losses(sources)[1][-1])

    def forgotten(self, *sources: str) -> float:
        """By how much the final loss is above the lowest loss of the run, in nats."""
        _, losses = self.losses(sources)
        return float(losses[-1] - losses.min())

    def peak(self, steps: int) -> float:
        """Largest unclipped gradient norm in `steps` steps after the switch, relative to the usual norm before it."""
        first = SWITCHES[self.curriculum]
        before = [row["train/grad_norm"] for row in self.rows if first - BEFORE < row["step"] <= first]
        after = [row["train/grad_norm"] for row in self.rows if first < row["step"] <= first + steps]
        return max(after) / statistics.median(before)


def final_of(*sources: str) -> Callable[[Switched], float]:
    """The metric "final loss of these sources"."""
    return lambda run: run.final(*sources)


METRICS: dict[str, Callable[[Switched], float]] = {
    "mean": final_of(*BASE, *TARGET),
    **{source: final_of(source) for source in (*BASE, *TARGET)},
    "forgetting: readmes": lambda run: run.forgotten("readmes"),
    "forgetting: stdlib": lambda run: run.forgotten("stdlib"),
    "gradient peak within 10 steps": lambda run: run.peak(10),
    "gradient peak within 100 steps": lambda run: run.peak(100),
}
LOSSES, REST = list(METRICS)[:5], list(METRICS)[5:]


def read(folder: Path) -> list[Switched]:
    """All runs of the study, with curricula in the order of `SWITCHES`."""
    runs = []
    for curriculum in SWITCHES:
        for seed in SEEDS:
            path = folder / f"curriculum=study_{curriculum},seed={seed}" / "metrics.jsonl"
            rows = read_rows(path) if path.is_file() else []
            if not rows or "val/loss/mean" not in rows[-1]:
                sys.exit(f"{path.parent} is not finished: run python train.py -m experiment=study_switch.")
            runs.append(Switched(curriculum, seed, rows))
    return runs


def table(runs: Sequence[Switched], metrics: Sequence[str]) -> Lines:
    """A table with a line per curriculum: the mean of its runs, and the difference to the abrupt switch."""
    lines = [["curriculum"], *([name] for name in SWITCHES)]
    last = ["between seeds"]
    for metric in metrics:
        lines[0].append(metric)
        values = [METRICS[metric](run) for run in runs]
        settings = [list(SWITCHES).index(run.curriculum) for run in runs]
        noise = AdditiveNoiseModel(values, settings, [run.seed for run in runs])
        abrupt = list(SWITCHES).index("abrupt")
        for n, line in enumerate(lines[1:]):
            difference = noise.difference(n, abrupt)
            mean = statistics.mean(value for value, k in zip(values, settings, strict=True) if k == n)
            told = "" if n == abrupt else f" ({difference.value:+.3f} {'≠' if difference.beyond_noise else '≈'})"
            line.append(f"{mean:.3f}{told}")
        last.append("" if noise.deviation is None else f"{noise.deviation:.3f}")
        if metric == "mean":
            told_of(lines, noise, "static")
            last.append("")
    return [*lines, last]


def told_of(lines: Lines, noise: AdditiveNoiseModel, other: str) -> None:
    """Add a column with the difference from another curriculum."""
    k = list(SWITCHES).index(other)
    lines[0].append(f"difference from {other} (mean)")
    for n, line in enumerate(lines[1:]):
        difference = noise.difference(n, k)
        line.append("" if n == k else f"{difference.value:+.3f} {'≠' if difference.beyond_noise else '≈'}")


def draw(runs: Sequence[Switched], path: Path) -> None:
    """Plot the validation loss of base and target, and the gradient norm, with a curve per curriculum."""
    figure, panels = plt.subplots(1, 3, figsize=(15, 4.4), layout="constrained")
    for colour, curriculum in zip(COLOURS, SWITCHES, strict=False):
        of = [run for run in runs if run.curriculum == curriculum]
        for panel, sources in zip(panels, (BASE, TARGET), strict=False):
            steps, _ = of[0].losses(sources)
            curves = np.array([run.losses(sources)[1] for run in of])
            late = steps >= 300
            panel.plot(steps[late], curves.mean(axis=0)[late], color=colour, label=curriculum)
            panel.fill_between(
                steps[late], curves.min(axis=0)[late], curves.max(axis=0)[late], color=colour, alpha=0.15, lw=0
            )
        norms = np.array([[row["train/grad_norm"] for row in run.rows if row["step"] > 300] for run in of])
        windows = norms[:, : norms.shape[1] // 10 * 10].reshape(len(of), -1, 10).max(axis=2).mean(axis=0)
        panels[2].plot(310 + 10 * np.arange(len(windows)), windows, color=colour, label=curriculum)
    for panel, title in zip(
        panels,
        (f"base: {' and '.join(BASE)}", f"target: {' and '.join(TARGET)}", "gradient norm, largest of ten steps"),
        strict=True,
    ):
        panel.set(title=title, xlabel="step")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("validation loss, nats; band: three seeds")
    panels[0].legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Print the tables, and write them and the plot into docs/."""
    runs = read(RUNS)
    losses, rest = table(runs, LOSSES), table(runs, REST)
    print_table(losses)
    print_table(rest)
    put_into(
        PAGE, BEGIN, END, f"{markdown_table(losses, None)}\n{markdown_table(rest, trained_on([*RUNS.glob('*seed=*')]))}"
    )
    draw(runs, PAGE.parent.with_name("images") / "study_switch.png")


if __name__ == "__main__":
    main()
