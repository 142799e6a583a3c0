"""The pictures of one run. Each source keeps its colour, line style and place in every one of them."""

from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from analysis.long_series import extremes, means
from analysis.run_record import Curves, RunRecord, Series, smooth

# From dark to light, so that they stay apart in greyscale too.
COLOURS = ("#1b2a5c", "#b5361c", "#2f8f83", "#e0a526", "#8a6fc1", "#9cc7e8")
STYLES: tuple[Any, ...] = ("-", (0, (6, 1.5)), (0, (2, 1)), (0, (6, 1.5, 1, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1, 1, 1)))

_POINTS = 4000  # of a line; a panel is some 500 pixels wide


def draw_curves(curves: Curves, path: Path) -> None:
    """Loss, learning rate, speed and memory over the steps."""
    figure = Figure(figsize=(11, 7), layout="constrained")
    loss, rate, speed, memory = figure.subplots(2, 2, sharex=True).flat
    _draw_line(loss, curves.loss, color="#a9b7d1", linewidth=1, label="each logged step")
    steps, values = means(curves.loss, most=_POINTS)
    loss.plot(steps, smooth(values), color=COLOURS[0], linewidth=2, label="smoothed")
    if len(curves.validation[0]):
        loss.plot(
            *curves.validation,
            "o",
            color=COLOURS[1],
            markersize=5,
            clip_on=False,
            label="validation, mean of sources",
        )
    foot = loss.get_xaxis_transform()
    if curves.saved:
        heights = [0.02] * len(curves.saved)
        loss.plot(curves.saved, heights, "|", transform=foot, color="0.25", markersize=9, label="checkpoint saved")
    if curves.resumed:
        loss.vlines(
            curves.resumed, 0, 1, transform=foot, color="black", linewidth=1.2, linestyle=":", label="interrupted"
        )
    loss.set(title="Training loss", ylabel="nats per loss-bearing token")
    loss.legend(loc="upper right", framealpha=0.9, edgecolor="none")
    _draw_line(rate, curves.learning_rate, color=COLOURS[0], linewidth=2)
    rate.set(title="Learning rate", ylabel="learning rate")
    rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    _draw_line(speed, curves.tokens_per_s, color=COLOURS[0], linewidth=1.5)
    speed.set(title="Speed, without validation, sampling and saving", ylabel="tokens per second", xlabel="step")
    speed.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    _draw_line(memory, curves.memory_gb, color=COLOURS[0], linewidth=1.5)
    memory.set(
        title="Memory", ylabel="GPU memory, peak, GB" if curves.memory_of_gpu else "resident memory, GB", xlabel="step"
    )
    for axes, series in ((speed, curves.tokens_per_s), (memory, curves.memory_gb)):
        axes.set_ylim(0, 1.1 * (series[1].max(initial=0) or 1))
    drawn = (curves.loss, curves.learning_rate, curves.tokens_per_s, curves.memory_gb)
    _finish(figure, path, title=curves.title, last_step=max(int(steps.max(initial=1)) for steps, _ in drawn))


def _draw_line(axes: Axes, series: Series, **look: Any) -> None:
    axes.plot(*extremes(series, most=_POINTS), **look)
    if not len(series[0]):
        axes.annotate("not logged", (0.5, 0.5), xycoords="axes fraction", ha="center", color="0.4")


def draw_mix(run: RunRecord, path: Path) -> None:
    """The mix of sequences and of loss-bearing tokens, planned as areas, realised as lines on their borders; the epochs of each
    source, and by how much it was ahead of its exact share."""
    figure = Figure(figsize=(13, 8), layout="constrained")
    (mix, bearing), (epochs, drift) = figure.subplots(2, 2, sharex=True)
    _draw_shares(mix, run, "mix/planned", "mix/realised")
    mix.set(title="Mix: planned (areas) and realised (lines)", ylabel="% of the sequences")
    _draw_shares(bearing, run, "mix/planned_loss_bearing", "mix/realised_loss_bearing")
    bearing.set(title="What bears the loss", ylabel="% of the loss-bearing tokens")
    steps, drifts = run.by_source("mix/drift")
    drift.fill_between(steps, drifts.min(axis=0), drifts.max(axis=0), color="0.9", label="all sources lie in here")
    for n, source in enumerate(run.sources):
        look = {"color": COLOURS[n % len(COLOURS)], "linestyle": STYLES[n % len(STYLES)]}
        epochs.plot(*run.series(f"mix/epochs/{source}"), **look, linewidth=2)
        drift.plot(*run.series(f"mix/drift/{source}"), **look, linewidth=1)
    epochs.set(title="Passes over each source", ylabel="epochs", xlabel="step")
    epochs.set_ylim(bottom=0)
    drift.set(title="Drift from the exact share: it stays under two", ylabel="sequences", xlabel="step", ylim=(-2, 2))
    drift.legend(frameon=False, loc="upper right")
    *areas, border = mix.get_legend_handles_labels()[0]
    both = [
        (area, line) for area, line in zip(areas, epochs.lines, strict=True)
    ]  # stacked from below: list them from above
    names = [*run.sources[::-1], "realised, border to border"]
    side_by_side = {tuple: HandlerTuple(ndivide=None)}
    place: dict[str, Any] = {"loc": "outside right upper", "frameon": False, "handlelength": 5}
    handles: list[Any] = [*both[::-1], border]
    figure.legend(handles, names, handler_map=side_by_side, **place)
    _finish(figure, path, title=run.curves.title, last_step=run.rows[-1]["step"])


def _draw_shares(axes: Axes, run: RunRecord, planned_key: str, realised_key: str) -> None:
    steps, planned = run.by_source(planned_key)
    realised = run.by_source(realised_key)[1]
    axes.stackplot(steps, planned * 100, colors=COLOURS, labels=run.sources, alpha=0.75)
    for n, border in enumerate(np.cumsum(realised * 100, axis=0)[:-1]):
        axes.plot(steps, border, color="black", linewidth=1, label=None if n else "realised, border to border")
    axes.set_ylim(0, 100)


def draw_perplexity(run: RunRecord, path: Path) -> None:
    """Validation perplexity of each source, and the unigram model's as the line to leave behind."""
    figure = Figure(figsize=(11, 6.5), layout="constrained")
    axes = figure.subplots()
    right_end = run.rows[-1]["step"]
    for n, source in enumerate(run.sources):
        steps, values = run.series(f"val/perplexity/{source}")
        axes.plot(
            steps,
            values,
            color=COLOURS[n % len(COLOURS)],
            linestyle=STYLES[n % len(STYLES)],
            linewidth=2,
            marker="o",
            markersize=4,
            clip_on=False,
        )
        axes.hlines(
            run.unigram_perplexity(source),
            0,
            right_end,
            color=COLOURS[n % len(COLOURS)],
            linestyle=STYLES[n % len(STYLES)],
            linewidth=1,
            alpha=0.6,
        )
    names = {s: v for s in run.sources if (v := run.last(f"val/perplexity/{s}")) is not None}
    _label_right(axes, right_end, {f"{source} {value:.1f}": value for source, value in names.items()})
    _label_right(
        axes, right_end, {f"unigram {s} {run.unigram_perplexity(s):.0f}": run.unigram_perplexity(s) for s in names}
    )
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set(title="Validation perplexity by source", ylabel="perplexity per loss-bearing token", xlabel="step")
    _finish(figure, path, title=run.curves.title, last_step=run.rows[-1]["step"])


def _label_right(axes: Axes, x: float, labels: dict[str, float]) -> None:
    """Write labels at the right end of their lines (log scale), pushed apart where they would overlap."""
    previous = 0.0
    colours = dict(zip(labels, cycle(COLOURS), strict=False))
    for label, value in sorted(labels.items(), key=lambda item: item[1]):
        y = max(value, previous * 1.13)
        previous = y
        axes.annotate(label, (x, y), xytext=(8, 0), textcoords="offset points", va="center", color=colours[label])


def _finish(figure: Figure, path: Path, *, title: str, last_step: int) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="0.92")
        axes.set_axisbelow(True)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        axes.set_xlim(0, last_step)
    figure.suptitle(title, x=0.01, ha="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
