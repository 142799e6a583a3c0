"""Report a comparison in the terminal: the ranking by mean validation loss."""

from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from analysis.comparison.comparison import Comparison
from analysis.comparison.comparison_page import write_comparison_page
from analysis.comparison.final_metrics_section import order_by_mean
from analysis.comparison.find_runs import common_folder, find_runs
from analysis.comparison.missing_sweep_jobs import missing_jobs
from analysis.comparison.read_runs import read_runs
from analysis.comparison.verdict_text import (
    LOSS,
    difference_text,
    format_metric,
    seed_noise_sentences,
    seeds_text,
    significance_text,
    verdict_sentence,
)
from gpt_lightning.console import Console

MOST_SHOWN = 12
"""Candidates in the terminal. The page has all of them."""


def write_and_print_comparison(runs: Any, out_dir: Path | None) -> None:
    """Write the page that compares runs, and print the ranking and the path of the page.

    Args:
        runs: a path or a pattern, or a list of paths and patterns.
        out_dir: folder for comparison.html; None: the folder that contains the runs.

    Raises:
        ValueError: `runs` matches no run.
    """
    paths, passed_over = find_runs(runs)
    comparison = Comparison(read_runs(paths))
    page = (out_dir or common_folder(paths)) / "comparison.html"
    write_comparison_page(
        comparison, page, title=f"Comparison of {', '.join([runs] if isinstance(runs, str) else runs)}"
    )
    console = Console(soft_wrap=True)
    if passed_over:
        console.print(
            f"{passed_over} {'folder is not a run and was' if passed_over == 1 else 'folders are not runs and were'} "
            "skipped"
        )
    for line in missing_jobs(runs):
        console.print(line)
    if any(comparison.reasons.values()):
        console.print(reference_sentence(comparison))
    for run in comparison.runs:
        reasons = [*comparison.reasons.get(run.name, []), *([run.note] if run.note else [])]
        if reasons:
            console.print(f"  {run.name}: {run.state}; {'; '.join(reasons)}")
    if comparison.ranked:
        console.print(f"{len(comparison.ranked)} of {len(paths)} runs are ranked")
        console.print(standings_table(comparison))
        console.print("\n".join([*seed_noise_sentences(comparison)[:1], verdict_sentence(comparison)]))
    else:
        console.print(f"none of {len(paths)} runs is ranked; the page gives the reasons")
    console.print(f"comparison:  {page}")


def reference_sentence(comparison: Comparison) -> str:
    """Say which run is the reference that the other runs must match, and why. Needed if some runs are excluded.

    Args:
        comparison: the compared runs.
    """
    chosen = [run.name for run in comparison.runs if comparison.reasons.get(run.name) == []]
    done = [run.name for run in comparison.runs if "val/loss/mean" in run.final]
    n_of_reference = len({*chosen} & {*done})
    counts = f"{n_of_reference} of the {len(done)} finished runs share" if done else f"{len(chosen)} runs share"
    return (
        f"the reference is {chosen[0]}: {counts} its tokenizer, validation data, token budget and schedule length, "
        "more than any other combination"
    )


def standings_table(comparison: Comparison) -> Table:
    """A table of the candidates by mean loss, with the significance of the differences to the lowest.

    Args:
        comparison: the compared runs.
    """
    cells = comparison.column(LOSS)
    table = Table(
        "settings",
        "loss",
        "\N{PLUS-MINUS SIGN} per run",
        "runs",
        "to the lowest",
        "more than noise?",
        box=None,
        pad_edge=False,
    )
    for column in table.columns[1:5]:
        column.justify = "right"
    order = order_by_mean(cells)
    for n in order[:MOST_SHOWN]:
        cell, candidate = cells[n], comparison.candidates[n]
        spread = "" if cell.deviation is None else format_metric(cell.deviation, "loss")
        texts = (
            format_metric(cell.mean, "loss"),
            spread,
            seeds_text(candidate),
            difference_text(cell, "loss"),
            significance_text(cell),
        )
        table.add_row(Text(candidate.name, overflow="fold"), *texts)
    if len(order) > MOST_SHOWN:
        table.add_row(f"… and {len(order) - MOST_SHOWN} more on the page")
    return table
