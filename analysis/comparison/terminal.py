"""A comparison in the terminal: who stands where by the mean validation loss."""

from rich.table import Table
from rich.text import Text

from analysis.comparison.comparing import Comparison
from analysis.comparison.standings import by_mean
from analysis.comparison.verdicts import LOSS, difference_of, seeds_of, verdict_of, written

MOST_SHOWN = 12
"""Candidates; the page has all of them."""


def standings_table(comparison: Comparison) -> Table:
    """The candidates by the mean of their runs, the lowest first, and whether their difference to it is more than noise."""
    cells = comparison.column(LOSS)
    table = Table(
        "settings",
        "loss",
        "\N{PLUS-MINUS SIGN} of a run",
        "runs",
        "to the lowest",
        "more than noise?",
        box=None,
        pad_edge=False,
    )
    for column in table.columns[1:5]:
        column.justify = "right"
    order = by_mean(cells)
    for n in order[:MOST_SHOWN]:
        cell, candidate = cells[n], comparison.candidates[n]
        spread = "" if cell.deviation is None else written(cell.deviation, "loss")
        texts = (written(cell.mean, "loss"), spread, seeds_of(candidate), difference_of(cell, "loss"), verdict_of(cell))
        table.add_row(Text(candidate.name, overflow="fold"), *texts)
    if len(order) > MOST_SHOWN:
        table.add_row(f"… and {len(order) - MOST_SHOWN} more on the page")
    return table
