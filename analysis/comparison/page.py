"""The page of a comparison: what differs, loss, final metrics, response surfaces and samples, in this order."""

import math
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from analysis.comparison.charts import MOST_SHOWN, loss_figure, surface_figures
from analysis.comparison.comparing import (
    ABSENT,
    KINDS,
    Candidate,
    Cell,
    Comparison,
    described,
    millions,
    shortened,
    text_of,
)
from analysis.comparison.noise import CONFIDENCE
from analysis.comparison.reading import Run, State
from analysis.comparison.samples import samples_beside_each_other
from analysis.standalone_page import write_page

_HERE = Path(__file__).parent
_LONGEST = 120  # characters of a setting
_TITLES = {"loss": "loss, nats per token", "perplexity": "perplexity per token", "bits_per_byte": "bits per byte"}
_AXES = {"steps": "steps", "tokens": "tokens", "flops": "FLOPs", "hours": "hours"}


def write_comparison(comparison: Comparison, path: Path, *, title: str) -> None:
    """Write the page; it needs no other file and no network."""
    figure, axes = loss_figure(comparison)
    surfaces = surface_figures(comparison)
    samples = samples_beside_each_other(comparison)
    sections = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(_summary(comparison))}</p>",
        *_flagged(comparison),
        *_differences(comparison),
        "<h2>Loss</h2>",
        *(_loss(comparison) if axes else ["<p>No run has logged a step yet.</p>"]),
        "<h2>Final metrics</h2>",
        *_final(comparison),
        "<h2>Response surfaces</h2>",
        *_surfaces([(heading, remark) for heading, _, remark in surfaces], comparison),
        "<h2>Samples</h2>",
        *(_samples() if samples["steps"] else ["<p>No run has written samples.</p>"]),
    ]
    write_page(
        path,
        title=title,
        body="\n".join(sections),
        style=(_HERE / "page.css").read_text(encoding="utf-8"),
        script=(_HERE / "page.js").read_text(encoding="utf-8"),
        data={
            "loss": {"figure": figure, "axes": axes},
            "surfaces": [figure for _, figure, _ in surfaces],
            "samples": samples,
        },
    )


def _summary(comparison: Comparison) -> str:
    compared, basis = comparison.comparable, comparison.reference
    if basis is None or not compared:
        return f"None of {len(comparison.runs)} runs could be compared."
    sizes = sorted({run.n_parameters for run in compared})
    model = f"{sizes[0] / 1e6:.4g}" + (f" to {sizes[-1] / 1e6:.4g}" if len(sizes) > 1 else "")
    return (
        f"{len(compared)} of {len(comparison.runs)} runs are compared, {len(comparison.ranked)} of them done: models of {model} "
        f"million parameters, {basis.steps:,} steps, {millions(basis.tokens)}, sources {', '.join(basis.sources)}."
    )


def _flagged(comparison: Comparison) -> Iterator[str]:
    """Which runs are left out, which are not at their end, and why."""
    rows = []
    for run in comparison.runs:
        reasons = comparison.reasons.get(run.name, [])
        twin = comparison.twins.get(run.name)
        said = [
            *reasons,
            *([run.note] if run.note else []),
            *([f"settings and seed of {twin} once more"] if twin else []),
        ]
        if said or run.state is not State.DONE:
            what = (
                "not compared"
                if run not in comparison.comparable
                else "not ranked"
                if run not in comparison.ranked
                else ""
            )
            rows.append([run.name, str(run.state), what or "not counted again", "; ".join(said)])
    if rows:
        yield '<div class="warning"><b>Set apart</b>'
        yield from _table(["run", "state", "here", "why"], rows, name="flagged")
        yield "</div>"


def _differences(comparison: Comparison) -> Iterator[str]:
    yield "<h2>What differs</h2>"
    runs, keys = comparison.comparable, comparison.differing
    if not keys:
        yield f"<p>{'The settings of all compared runs are the same.' if runs else 'There is no run to compare.'}</p>"
    else:
        rows = []
        for run in runs:
            settings = described(run)
            rows.append([run.name, *(shortened(text_of(settings.get(key, ABSENT)), _LONGEST) for key in keys)])
        yield from _table(["run", *keys], rows, name="differences")
    if runs:
        common = len([key for key in runs[0].settings if key not in keys])
        yield f'<p class="small">The other {common:,} settings are the same in all of them, but for names and places.</p>'


def _loss(comparison: Comparison) -> Iterator[str]:
    yield _choices("axis", "against", _AXES)
    yield '<div id="loss-chart"></div>'
    hours = "" if all(_has_speed(run) for run in comparison.comparable) else " Runs without a logged speed have none."
    waiting = "Runs that are not compared are"
    if len(comparison.comparable) > MOST_SHOWN:
        waiting = f"At first the {MOST_SHOWN} best are shown; the others, and runs that are not compared, are"
    yield (
        '<p class="small">Training loss is smoothed by a Gaussian as wide as a fortieth of what was logged. FLOPs are '
        "6 N + 12 n_layers d_model T for each token, forward and backward. Hours are of training alone, tokens over speed: "
        f"without validation, sampling and saving.{hours} The first steps lie above the chart: a double click shows all. "
        f"{waiting} in the legend, where a click shows them.</p>"
    )


def _has_speed(run: Run) -> bool:
    return len(run.series("speed/tokens_per_s")[0]) > 0


def _final(comparison: Comparison) -> Iterator[str]:
    if not comparison.candidates:
        yield "<p>No compared run is done and validated at its end: there is nothing to rank.</p>"
        return
    yield f"<p>{escape(_noise_in_words(comparison))}</p>"
    yield _choices("metric", "validation", _TITLES)
    for kind in KINDS:
        yield f'<div id="final-{kind}">'
        yield from _standings(comparison, kind)
        yield "</div>"
    yield (
        '<p class="small">Lower is better; the best of a column is marked, with the difference to it below the others: '
        "≠ beyond the noise between seeds, ≈ within it, ? unknown. Each column has a noise of its own. “mean” weighs "
        "every source the same.</p>"
    )


def _noise_in_words(comparison: Comparison) -> str:
    noise = comparison.noise("val/loss/mean")
    if noise is None:
        return (
            "The noise between seeds is unknown: no two of these runs differ in their seed alone. Whether a difference is more "
            "than chance cannot be said; train some of them with another seed as well."
        )
    groups = [candidate for candidate in comparison.candidates if len(candidate.runs) > 1]
    n_runs = sum(len(candidate.runs) for candidate in groups)
    most = max(len(candidate.runs) for candidate in groups)
    return (
        f"Noise between seeds: a run's mean validation loss has a standard deviation of {noise.deviation:.2g}, pooled over "
        f"{n_runs} runs in {len(groups)} groups that differ in nothing but their seed ({noise.degrees} degrees of freedom). By a "
        f"two-sided t-test at {CONFIDENCE:.0%}, two single runs differ where their losses are more than "
        f"{noise.least_difference(1, 1):.2g} apart"
        + (
            f", means of {most} seeds where they are more than {noise.least_difference(most, most):.2g} apart"
            if most > 1
            else ""
        )
        + ". All settings are taken to scatter alike, and nothing is deducted for picking the best of many."
    )


def _standings(comparison: Comparison, kind: str) -> Iterator[str]:
    candidates = comparison.candidates
    columns = {source: comparison.column(f"val/{kind}/{source}") for source in comparison.sources}
    heads = ["settings", "runs", "mean", "to the best", "more than noise?", *comparison.sources[1:]]
    order = sorted(range(len(candidates)), key=lambda n: _sortable(columns["mean"][n].mean))
    yield f'<div class="scroll"><table class="sortable" id="table-{kind}"><thead><tr>'
    yield "".join(_head(head, number=n > 0 and n != 4) for n, head in enumerate(heads))
    yield "</tr></thead><tbody>"
    for n in order:
        candidate, mean = candidates[n], columns["mean"][n]
        yield "<tr>" + "".join(
            [
                f"<td>{_breakable(candidate.name)}</td>",
                f'<td class="number" data-value="{len(candidate.runs)}">{escape(_seeds(candidate))}</td>',
                _value_cell(mean, kind, below=False),
                f'<td class="number" data-value="{_value(mean.difference)}">{_difference(mean, kind)}</td>',
                f"<td>{_verdict(mean)}</td>",
                *(_value_cell(columns[source][n], kind, below=True) for source in comparison.sources[1:]),
            ]
        )
        yield "</tr>"
    yield "</tbody></table></div>"


def _seeds(candidate: Candidate) -> str:
    return f"{len(candidate.runs)} seeds" if len(candidate.runs) > 1 else "1"


def _value_cell(cell: Cell, kind: str, *, below: bool) -> str:
    sign = {None: "?", True: "≠", False: "≈"}[cell.beyond_noise]
    small = (
        f"<small>{_difference(cell, kind)} {sign}</small>"
        if below and math.isfinite(cell.difference) and not cell.best
        else ""
    )
    best = ' class="number best"' if cell.best else ' class="number"'
    return f'<td{best} data-value="{_value(cell.mean)}">{_written(cell.mean, kind)}{small}</td>'


def _verdict(cell: Cell) -> str:
    if cell.best:
        return "the best"
    if not math.isfinite(cell.mean):
        return "not a number"
    if cell.beyond_noise is None or cell.p_value is None:
        return "unknown"
    p = f"p = {cell.p_value:.2g}" if cell.p_value >= 1e-4 else "p < 0.0001"
    return f"{'yes' if cell.beyond_noise else 'no'}, {p}"


def _difference(cell: Cell, kind: str) -> str:
    return "" if cell.best or not math.isfinite(cell.difference) else f"+{_written(cell.difference, kind)}"


def _written(value: float, kind: str) -> str:
    if not math.isfinite(value):
        return "not finite"
    return f"{value:,.2f}" if kind == "perplexity" else f"{value:.4f}"


def _value(value: float) -> str:
    return repr(value) if math.isfinite(value) else ""


def _sortable(value: float) -> float:
    return value if math.isfinite(value) else math.inf


def _surfaces(shown: Sequence[tuple[str, str]], comparison: Comparison) -> Iterator[str]:
    if not shown:
        n = len(comparison.ranked)
        yield (
            "<p>There are not runs enough: a curve takes three values of optimizer.lr, or of a weight of the curriculum, in runs "
            "that differ in nothing else but their seed; a heat map, two values each of two of them, in all combinations or "
            f"half. {f'{n} runs are' if n != 1 else '1 run is'} ranked.</p>"
        )
        return
    yield '<div class="surfaces">'
    for n, (heading, remark) in enumerate(shown):
        yield f'<div><h3>{escape(heading)}</h3><div id="surface-{n}"></div><p class="small">{escape(remark)}</p></div>'
    yield "</div>"


def _samples() -> Iterator[str]:
    yield '<p><label>after step <select id="sample-step"></select></label></p>'
    yield '<div id="sample-cards"></div>'


def _choices(name: str, legend: str, choices: dict[str, str]) -> str:
    buttons = "".join(
        f'<label><input type="radio" name="{name}" value="{value}"{"" if n else " checked"}> {text}</label>'
        for n, (value, text) in enumerate(choices.items())
    )
    return f"<fieldset><legend>{legend}</legend>{buttons}</fieldset>"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, name: str) -> Iterator[str]:
    """Of texts, a first column of names."""
    yield f'<div class="scroll"><table class="sortable" id="table-{name}"><thead><tr>'
    yield "".join(_head(head, number=False) for head in heads)
    yield "</tr></thead><tbody>"
    for row in rows:
        yield "<tr>" + "".join(f"<td>{_breakable(cell)}</td>" for cell in row) + "</tr>"
    yield "</tbody></table></div>"


def _head(text: str, *, number: bool) -> str:
    return f'<th{" class=number" if number else ""}><button type="button">{_breakable(text)}</button></th>'


def _breakable(text: str) -> str:
    """HTML of a text that may be broken after the dots and commas of a run's or a setting's name."""
    return escape(text).replace(".", ".<wbr>").replace(",", ",<wbr>")
