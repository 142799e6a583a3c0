"""Of the page: how the candidates stand at their end, by every metric and source."""

import math
from collections.abc import Iterator, Sequence
from html import escape

from analysis.comparison.comparison import METRIC_KINDS, Comparison
from analysis.comparison.metric_significance import MetricResult, Significance
from analysis.comparison.sortable_html_tables import TABLE_END, breakable, sort_keys, table_head
from analysis.comparison.verdict_text import (
    difference_text,
    format_metric,
    seed_noise_sentences,
    seeds_text,
    significance_text,
)

TITLES = {"loss": "loss, nats per token", "perplexity": "perplexity per token", "bits_per_byte": "bits per byte"}
_SIGNS = {None: "?", True: "≠", False: "≈"}


def final_metrics_section(comparison: Comparison) -> Iterator[str]:
    """A table for each of `TITLES`, and what they rest on."""
    yield f"<p>{escape(' '.join(seed_noise_sentences(comparison)))}</p>"
    for kind in METRIC_KINDS:
        yield f'<div id="final-{kind}">'
        yield from _table(comparison, kind)
        yield "</div>"
    yield (
        '<p class="small">Lower is better. Marked are the best of a column, and what cannot be told from the lowest: these are '
        "tied for best. Where the noise is unknown, none is marked. Below the others stands their difference to it: ≠ beyond "
        "the noise between seeds, ≈ within it, ? unknown. Each column has a noise of its own; a perplexity grows with "
        "its loss, and has its verdict. “±” is the standard deviation of a setting's own runs, seeds included; where not all "
        "have the same seeds, the difference to the lowest is that of the model, and not of the means. “mean” weighs every "
        "source the same.</p>"
    )


def _table(comparison: Comparison, kind: str) -> Iterator[str]:
    candidates, sources = comparison.candidates, comparison.sources
    columns = {source: comparison.column(f"val/{kind}/{source}") for source in sources}
    heads = ["settings", "runs", "mean", "± of a run", "to the lowest", "more than noise?", *sources[1:]]
    names = sort_keys([candidate.name for candidate in candidates])
    yield from table_head(heads, numbers=[n for n in range(len(heads)) if n not in (0, 5)], name=kind)
    for n in order_by_mean(columns["mean"]):
        candidate, mean = candidates[n], columns["mean"][n]
        spread = "" if mean.deviation is None else format_metric(mean.deviation, kind)
        cells = [
            f'<td data-value="{names[n]}">{breakable(candidate.name)}</td>',
            f'<td class="number" data-value="{len(candidate.runs)}">{escape(seeds_text(candidate))}</td>',
            _value_cell(mean, kind, below=False),
            f'<td class="number" data-value="{_value(mean.deviation)}">{spread}</td>',
            f'<td class="number" data-value="{_value(mean.difference)}">{difference_text(mean, kind)}</td>',
            f'<td data-value="{1.0 if mean.lowest else _value(mean.p_value)}">{significance_text(mean)}</td>',
            *(_value_cell(columns[source][n], kind, below=True) for source in sources[1:]),
        ]
        yield f"<tr>{''.join(cells)}</tr>"
    yield TABLE_END


def order_by_mean(cells: Sequence[MetricResult]) -> list[int]:
    """The candidates' numbers, the lowest mean first, and last what is not finite."""
    return sorted(range(len(cells)), key=lambda n: cells[n].mean if math.isfinite(cells[n].mean) else math.inf)


def _value_cell(cell: MetricResult, kind: str, *, below: bool) -> str:
    difference = difference_text(cell, kind)
    small = f"<small>{difference} {_SIGNS[cell.beyond_noise]}</small>" if below and difference else ""
    best = ' class="number best"' if cell.standing in (Significance.BEST, Significance.TIED) else ' class="number"'
    return f'<td{best} data-value="{_value(cell.mean)}">{format_metric(cell.mean, kind)}{small}</td>'


def _value(value: float | None) -> str:
    return repr(value) if value is not None and math.isfinite(value) else ""
