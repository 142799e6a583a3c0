"""Write the page of a comparison: differences, loss, final metrics, evaluation, response surfaces, samples."""

import math
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from analysis.comparison.comparison import Comparison, format_millions
from analysis.comparison.evaluation_section import evaluation_section
from analysis.comparison.final_metrics_section import TITLES, final_metrics_section
from analysis.comparison.loss_charts import MOST_SHOWN, Figure, loss_figure
from analysis.comparison.response_surface_charts import response_surface_figures
from analysis.comparison.run import Run, RunState
from analysis.comparison.run_settings import ABSENT, setting_text, shorten_setting_names
from analysis.comparison.samples_section import samples_section
from analysis.comparison.sortable_html_tables import sortable_table
from analysis.comparison.verdict_text import verdict_sentence
from analysis.standalone_html import write_html_page

_HERE = Path(__file__).parent
_LONGEST = 120  # characters of a setting
_AXES = {"steps": "steps", "tokens": "tokens", "flops": "FLOPs", "hours": "time"}


def write_comparison_page(comparison: Comparison, path: Path, *, title: str) -> None:
    """Write the page, which needs no other file and no network.

    Args:
        comparison: the compared runs.
        path: path of the HTML file.
        title: title of the page.
    """
    figure, axes = loss_figure(comparison)
    surfaces = response_surface_figures(comparison)
    samples = samples_section(comparison)
    sections = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="verdict">{escape(verdict_sentence(comparison))}</p>',
        f"<p>{escape(_summary(comparison))}</p>",
        *_flagged(comparison),
        *_differences(comparison),
        "<h2>Loss</h2>",
        *(_loss(comparison, _some_lie_above(figure)) if axes else ["<p>No run has logged a step yet.</p>"]),
        "<h2>Final metrics</h2>",
        *_final(comparison),
        "<h2>Evaluation</h2>",
        *evaluation_section([(run.name, figure) for run in comparison.comparable for figure in run.figures]),
        "<h2>Response surfaces</h2>",
        *_surfaces([(heading, remark) for heading, _, remark in surfaces], comparison),
        "<h2>Samples</h2>",
        *(_samples() if samples["steps"] else ["<p>No run has written samples.</p>"]),
    ]
    write_html_page(
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
        f"{len(compared)} of {len(comparison.runs)} runs are compared, {len(comparison.ranked)} of them done: models "
        f"of {model} million parameters, {basis.steps:,} steps, {format_millions(basis.tokens)}, sources "
        f"{', '.join(basis.sources)}."
    )


def _flagged(comparison: Comparison) -> Iterator[str]:
    """A table of the runs that are excluded or unfinished, with the reasons."""
    rows = []
    for run in comparison.runs:
        reasons = comparison.reasons.get(run.name, [])
        twin = comparison.twins.get(run.name)
        said = [
            *reasons,
            *([run.note] if run.note else []),
            *([f"same settings and seed as {twin}"] if twin else []),
        ]
        if said or run.state is not RunState.DONE:
            what = (
                "not compared"
                if run not in comparison.comparable
                else "not ranked"
                if run not in comparison.ranked
                else ""
            )
            rows.append([run.name, str(run.state), what or "counted once", "; ".join(said)])
    if rows:
        yield '<div class="warning"><b>Excluded or unfinished runs</b>'
        yield from sortable_table(["run", "state", "in this comparison", "reason"], rows, name="flagged")
        yield "</div>"


def _differences(comparison: Comparison) -> Iterator[str]:
    yield "<h2>What differs</h2>"
    runs, keys = comparison.comparable, comparison.differing
    if not keys:
        yield f"<p>{'The settings of all compared runs are the same.' if runs else 'There is no run to compare.'}</p>"
    else:
        rows = []
        for run in runs:
            values = (shorten_setting_names(setting_text(run.described.get(key, ABSENT)), _LONGEST) for key in keys)
            rows.append([run.name, *values])
        yield from sortable_table(["run", *keys], rows, name="differences")
    if runs:
        common = len([key for key in runs[0].settings if key not in keys])
        yield f'<p class="small">The other {common:,} settings are the same in all runs, except names and paths.</p>'


def _some_lie_above(figure: Figure) -> bool:
    """Whether some points that are visible at first lie above the charts."""
    tops = {panel: figure["layout"][f"yaxis{panel}"].get("range", [0, math.inf])[1] for panel in ("", "2")}
    shown = [trace for trace in figure["data"] if trace["visible"] is True]
    return any(max(trace["y"], default=0) > tops[trace["yaxis"][1:]] for trace in shown)


def _loss(comparison: Comparison, above: bool) -> Iterator[str]:
    yield _choices("axis", "against", _AXES)
    yield '<div id="loss-chart"></div>'
    hours = (
        "" if all(_has_speed(run) for run in comparison.comparable) else " Runs without a logged speed have no time."
    )
    first = " The first steps lie above the chart: a double click shows all points." if above else ""
    waiting = "Runs that are not compared are"
    if len(comparison.comparable) > MOST_SHOWN:
        waiting = f"At first only the {MOST_SHOWN} best runs are shown; the other runs and those not compared are"
    yield (
        '<p class="small">Training loss is smoothed by local linear regression over a twentieth of the logged steps. '
        "FLOPs are 6 N + 12 n_layers d_model T per token, forward and backward. Time is that of training only, tokens "
        f"divided by speed: without validation, sampling and saving.{hours}{first} {waiting} in the legend; click to "
        "show them.</p>"
    )


def _has_speed(run: Run) -> bool:
    return len(run.metrics.series("speed/tokens_per_s")[0]) > 0


def _final(comparison: Comparison) -> Iterator[str]:
    if not comparison.candidates:
        yield "<p>No compared run is finished and validated at its end, so there is no ranking.</p>"
        return
    yield _choices("metric", "validation", TITLES)
    yield from final_metrics_section(comparison)


def _surfaces(shown: Sequence[tuple[str, str]], comparison: Comparison) -> Iterator[str]:
    if not shown:
        n = len(comparison.ranked)
        yield (
            "<p>There are too few runs. A curve needs three values of optimizer.lr or of a mix weight, in runs that "
            "otherwise differ only in their seed. A heat map needs two values of each of two such settings, in at "
            f"least half of all combinations. {f'{n} runs are' if n != 1 else '1 run is'} ranked.</p>"
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
