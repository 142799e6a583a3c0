"""python -m benchmarks.regmix_prediction <folder of RegMix's tables>: how well laws fitted to some runs predict others.

Writes the table of docs/explanation/mix_laws.md.

The laws are fitted to 64 of RegMix's runs (three random draws) and to all 512, and predict its 256 unseen runs. Each
fit makes its choices from its own runs only.
"""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

from benchmarks.machine import describe
from benchmarks.tables import ROOT, Lines, markdown_table, print_table, put_into
from mix_laws import fit_mix_law, read_mix_runs
from mix_laws.cross_validation import linear_fit, r_squared, rank_correlation

BEGIN, END = "<!-- RegMix: made by python -m benchmarks.regmix_prediction -->\n", "<!-- end of RegMix -->\n"
DRAWS = (0, 1, 2)
FEW = 64
Predictor = Callable[[np.ndarray], np.ndarray]
"""(mixes, sources) -> (mixes, validation)."""


def predictors(ratios: np.ndarray, losses: np.ndarray) -> Iterator[tuple[str, Predictor]]:
    """The compared predictors, each fitted to the same runs."""
    yield "law", fit_mix_law(ratios, losses).predict
    yield "law of shares alone", fit_mix_law(ratios, losses, powers=(1.0,)).predict
    yield "law of shares alone, plain least squares", plain_least_squares(ratios, losses)
    of_sources = linear_fit(ratios, losses)
    yield "linear fit", lambda mixes: mixes @ of_sources
    yield "mean of the runs", lambda mixes: np.repeat(losses.mean(axis=0)[None], len(mixes), axis=0)


def plain_least_squares(ratios: np.ndarray, losses: np.ndarray) -> Predictor:
    """c + exp(t . r) by least squares from one starting point, without regularisation: the baseline."""
    fitted = []
    for y in losses.T:
        c = y.min() - 0.5 * np.ptp(y)
        t = np.linalg.lstsq(ratios, np.log(y - c), rcond=None)[0]

        def error(p: np.ndarray, y: np.ndarray = y) -> np.ndarray:
            residuals: np.ndarray = p[0] + np.exp(np.clip(ratios @ p[1:], -30, 30)) - y
            return residuals

        fitted.append(least_squares(error, [c, *t]).x)
    table = np.array(fitted)  # (validation, 1 + sources)
    return lambda mixes: table[:, 0] + np.exp(np.clip(mixes @ table[:, 1:].T, -30, 30))


def scores(predicted: np.ndarray, measured: np.ndarray) -> tuple[float, float]:
    """(Spearman correlation, R²), as means over the validation losses."""
    constant = np.ptp(predicted, axis=0).max() == 0
    ranks = 0.0 if constant else float(rank_correlation(predicted, measured).mean())
    return ranks, float(r_squared(predicted, measured).mean())


def chosen_runs(n_runs: int, draw: int) -> np.ndarray:
    """Indices of `FEW` randomly drawn runs."""
    return np.random.default_rng(draw).permutation(n_runs)[:FEW]


def measure(folder: str) -> Lines:
    """The table: Spearman and R² of each predictor on the unseen runs, the law's seconds, its intervals' coverage."""
    runs = read_mix_runs(folder)
    if runs.held_out is None:
        raise ValueError(
            f"{folder} has no unseen runs: RegMix's test_mixture_1m.csv and test_pile_loss_1m.csv are missing."
        )
    sets = {f"{FEW} runs, draw {draw}": chosen_runs(len(runs.names), draw) for draw in DRAWS}
    sets[f"all {len(runs.names)} runs"] = np.arange(len(runs.names))
    lines: Lines = []
    for name, chosen in sets.items():
        ratios, losses = runs.ratios[chosen], runs.losses[chosen]
        begin = time.perf_counter()
        law = fit_mix_law(ratios, losses)
        seconds = time.perf_counter() - begin
        low, high = law.run_interval(runs.held_out.ratios)
        inside = float(((runs.held_out.losses >= low) & (runs.held_out.losses <= high)).mean())
        of = {who: scores(ask(runs.held_out.ratios), runs.held_out.losses) for who, ask in predictors(ratios, losses)}
        lines = lines or [["fitted to", *of, "time to fit the law", "runs within its 95 % intervals"]]
        lines.append(
            [name, *(f"{rank:.3f}, {r2:.3f}" for rank, r2 in of.values()), f"{seconds:.1f} s", f"{inside:.1%}"]
        )
    return lines


def main() -> None:
    """Print the table and write it into docs/explanation/mix_laws.md."""
    if len(sys.argv) != 2:
        sys.exit("python -m benchmarks.regmix_prediction <folder with RegMix's train_… and test_… tables>")
    lines = measure(sys.argv[1])
    print_table(lines)
    put_into(Path(ROOT / "docs" / "explanation" / "mix_laws.md"), BEGIN, END, markdown_table(lines, describe("cpu")))


if __name__ == "__main__":
    main()
