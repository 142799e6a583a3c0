"""Section of the comparison page: the final metrics of the candidates, by metric and source."""

import math
from collections.abc import Iterator, Sequence
from html import escape

from analysis.comparison.comparison import METRIC_KINDS, Comparison
from analysis.comparison.metric_result import MetricResult, Significance
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
    """A table for each metric in `TITLES`, with an explanation.

    Args:
        comparison: the compared runs.
    """
    yield f"<p>{escape(' '.join(seed_noise_sentences(comparison)))}</p>"
    for kind in METRIC_KINDS:
        yield f'<div id="final-{kind}">'
        yield from _table(comparison, kind)
        yield "</div>"
    yield (
        '<p class="small">Lower is better. In each column, the best value and the values that cannot be distinguished from it '
        "(tied for best) are marked. If the noise is unknown, none is marked. Other values show their difference to "
        "the lowest: ≠ larger than the noise between seeds, ≈ within the noise, ? unknown. Each column has its own "
        "noise. A perplexity grows with its loss and has the loss's verdict. “±” is the standard deviation of a "
        "setting's runs over seeds. If the settings do not all have the same seeds, the difference to the lowest "
        "comes from the noise model, not from the means. “mean” weights all sources equally.</p>"
    )


def _table(comparison: Comparison, kind: str) -> Iterator[str]:
    candidates, sources = comparison.candidates, comparison.sources
    columns = {source: comparison.column(f"val/{kind}/{source}") for source in sources}
    heads = ["settings", "runs", "mean", "± per run", "to the lowest", "more than noise?", *sources[1:]]
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
    """Indices of the candidates by ascending mean; values that are not finite come last."""
    return sorted(range(len(cells)), key=lambda n: cells[n].mean if math.isfinite(cells[n].mean) else math.inf)


def _value_cell(cell: MetricResult, kind: str, *, below: bool) -> str:
    difference = difference_text(cell, kind)
    small = f"<small>{difference} {_SIGNS[cell.beyond_noise]}</small>" if below and difference else ""
    best = ' class="number best"' if cell.standing in (Significance.BEST, Significance.TIED) else ' class="number"'
    return f'<td{best} data-value="{_value(cell.mean)}">{format_metric(cell.mean, kind)}{small}</td>'


def _value(value: float | None) -> str:
    return repr(value) if value is not None and math.isfinite(value) else ""
