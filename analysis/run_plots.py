"""Plots of one run, written to files and returned.

A source has the same colour, line style and place in each plot.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from analysis.metrics_reader import Series
from analysis.plot_colours import COLOURS
from analysis.run_reader import Curves, LoggedRun
from analysis.series_downsampling import band, extremes, finite, means, smooth, thin

STYLES: tuple[Any, ...] = ("-", (0, (6, 1.5)), (0, (2, 1)), (0, (6, 1.5, 1, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1, 1, 1)))
_HATCHES = ("", "///", "...", "xxx")

_LABELS = 32  # labels that fit one above the other next to a single panel
_NAMED = 8.0  # %: a larger area has room for its source's name
_POINTS = 4000  # per line; a panel is about 500 pixels wide


def draw_curves(curves: Curves, path: Path) -> Figure:
    """Draw loss, learning rate, speed and memory over the steps.

    Args:
        curves: what to draw.
        path: path of the PNG file.
    """
    figure = Figure(figsize=(11, 7), layout="constrained")
    loss, rate, speed, memory = figure.subplots(2, 2, sharex=True).flat
    _draw_line(loss, curves.loss, color="#a9b7d1", linewidth=1, label="each logged step")
    steps, values = means(finite(curves.loss), most=_POINTS)
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
    if curves.changed:
        heights = [0.97] * len(curves.changed)
        loss.plot(curves.changed, heights, "v", transform=foot, color="black", markersize=8, label="settings changed")
    loss.set(title="Training loss", ylabel="nats per loss-bearing token" if curves.ours else "loss, as logged")
    loss.legend(loc="upper right", framealpha=0.6, edgecolor="none")
    _draw_line(rate, curves.learning_rate, color=COLOURS[0], linewidth=2)
    rate.set(title="Learning rate", ylabel="learning rate")
    rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    _draw_line(speed, curves.tokens_per_s, color=COLOURS[0], linewidth=1.5)
    speed.set(
        title="Speed, without validation, sampling and saving" if curves.ours else "Speed, as logged",
        ylabel="tokens per second",
        xlabel="step",
    )
    speed.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    _draw_line(memory, curves.memory_gb, color=COLOURS[0], linewidth=1.5)
    measured = "GPU memory, peak, GB" if curves.memory_of_gpu else "resident memory, GB"
    memory.set(title="Memory", ylabel=measured if curves.ours else "GB, as logged", xlabel="step")
    for axes, series in ((speed, curves.tokens_per_s), (memory, curves.memory_gb)):
        axes.set_ylim(0, 1.1 * (series[1].max(initial=0) or 1))
    drawn = (curves.loss, curves.learning_rate, curves.tokens_per_s, curves.memory_gb)
    return _finish(figure, path, title=curves.title, last_step=max(int(steps.max(initial=1)) for steps, _ in drawn))


def line_style(n: int) -> dict[str, Any]:
    """Colour and line style of source number `n`; the first 36 all differ."""
    return {"color": COLOURS[n % len(COLOURS)], "linestyle": STYLES[(n + n // len(COLOURS)) % len(STYLES)]}


def _draw_line(axes: Axes, series: Series, **look: Any) -> None:
    axes.plot(*extremes(series, most=_POINTS), **look)
    if not len(series[0]):
        axes.annotate("not logged", (0.5, 0.5), xycoords="axes fraction", ha="center", color="0.4")


def draw_mix(run: LoggedRun, path: Path) -> Figure:
    """Draw the planned and realised mix of sequences and of loss-bearing tokens, and epochs and drift of each source.

    Args:
        run: the run.
        path: path of the PNG file.
    """
    figure = Figure(figsize=(13, 8), layout="constrained")
    (mix, bearing), (epochs, drift) = figure.subplots(2, 2, sharex=True)
    areas = _draw_shares(mix, run, "mix/planned", "mix/realised")
    mix.set(title="Mix: planned (areas) and realised (lines)", ylabel="% of sequences")
    _draw_shares(bearing, run, "mix/planned_loss_bearing", "mix/realised_loss_bearing")
    bearing.set(title="Loss-bearing tokens by source", ylabel="% of loss-bearing tokens")
    steps, drifts = run.by_source("mix/drift")
    between = drift.fill_between(*band(steps, drifts, most=_POINTS), color="0.9")
    for n, source in enumerate(run.sources):
        passes, ahead = (run.metrics.series(f"mix/{what}/{source}") for what in ("epochs", "drift"))
        epochs.plot(*thin(passes, most=_POINTS), **line_style(n), linewidth=2, label=_plain(source))
        drift.plot(*extremes(ahead, most=_POINTS), **line_style(n), linewidth=1, label=_plain(source))
    epochs.set(title="Passes over each source", ylabel="epochs", xlabel="step")
    epochs.set_ylim(bottom=0)
    drift.set(title="Drift from the exact share (below 2 sequences)", ylabel="sequences", xlabel="step", ylim=(-2, 2))
    named: dict[str, Any] = dict(zip(map(_plain, run.sources), zip(areas, epochs.lines, strict=True), strict=True))
    named = dict(reversed(named.items()))  # areas are stacked from the bottom; list them from the top
    if mix.lines:  # a single source has no border
        named[str(mix.lines[0].get_label())] = mix.lines[0]
    between.set_label("range of all drifts")
    named[str(between.get_label())] = between
    side_by_side = {tuple: HandlerTuple(ndivide=None)}
    place: dict[str, Any] = {"loc": "outside right upper", "frameon": False, "handlelength": 5}
    figure.legend([*named.values()], [*named], handler_map=side_by_side, **place)
    return _finish(figure, path, title=run.curves.title, last_step=run.metrics.last_step)


def _draw_shares(axes: Axes, run: LoggedRun, planned_key: str, realised_key: str) -> list[Any]:
    """Draw the planned shares as areas and the realised ones as lines between them, and return the areas."""
    steps, planned = thin(run.by_source(planned_key), most=_POINTS)
    _, realised = thin(run.by_source(realised_key), most=_POINTS)
    areas = axes.stackplot(steps, planned * 100, labels=[*map(_plain, run.sources)], colors=COLOURS, alpha=0.75)
    for n, area in enumerate(areas):
        area.set(hatch=_HATCHES[n // len(COLOURS) % len(_HATCHES)], edgecolor="white", linewidth=0)
    for border in np.cumsum(realised * 100, axis=0)[:-1]:
        axes.plot(steps, border, color="black", linewidth=1, label="realised border")
    axes.set_ylim(0, 100)
    tops = np.cumsum(planned * 100, axis=0)
    inner = slice(len(steps) // 6, -(len(steps) // 6) or None)  # where a name stays inside the panel
    for share, top, source in zip(planned[:, inner] * 100, tops[:, inner], run.sources, strict=True):
        if share.max(initial=0) > _NAMED:
            at = int(share.argmax())
            look: dict[str, Any] = {"ha": "center", "va": "center", "color": "white", "fontweight": "bold"}
            axes.text(steps[inner][at], top[at] - share[at] / 2, _plain(source), **look)
    return areas


def _plain(text: str) -> str:
    """Escape `$` in a user's name, which matplotlib would read as a formula."""
    return text.replace("$", r"\$")


def draw_perplexity(run: LoggedRun, path: Path) -> Figure:
    """Draw the validation perplexity of each source, and the unigram model's as a reference.

    Args:
        run: the run.
        path: path of the PNG file.
    """
    figure = Figure(figsize=(11, 6.5), layout="constrained")
    axes = figure.subplots()
    right_end = run.metrics.last_step
    labels: list[tuple[float, str, str]] = []
    for n, source in enumerate(run.sources):
        steps, values = run.metrics.series(f"val/perplexity/{source}")
        look, unigram = line_style(n), run.unigram_perplexity(source)
        dots: dict[str, Any] = {"marker": "o", "markersize": 4, "clip_on": False}
        if len(steps):
            axes.plot(steps, values, **look, **dots, linewidth=2, label=_plain(source))
        axes.hlines(unigram, 0, right_end, **look, linewidth=1, alpha=0.6, label=_plain(f"unigram {source}"))
        labels += [(value, f"{source} {value:.1f}", look["color"]) for value in values[-1:]]
        labels.append((unigram, f"unigram {source} {unigram:.0f}", look["color"]))
    axes.set_yscale("log")
    _label_right(axes, right_end, labels)
    if not axes.lines:
        axes.annotate("not validated yet", (0.5, 0.5), xycoords="axes fraction", ha="center", color="0.4")
    axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set(
        title="Validation perplexity by source; thin lines: a unigram model on the whole split",
        ylabel="perplexity per loss-bearing token",
        xlabel="step",
    )
    return _finish(figure, path, title=run.curves.title, last_step=run.metrics.last_step)


def _label_right(axes: Axes, x: float, labels: Sequence[tuple[float, str, str]]) -> None:
    """Write (value, text, colour) at the right end of lines on a log scale, moved apart where labels would overlap."""
    bottom, top = axes.get_ylim()
    apart = (top / bottom) ** (1 / _LABELS)
    previous = 0.0
    for value, label, colour in sorted(labels):
        previous = y = max(value, previous * apart)
        axes.annotate(_plain(label), (x, y), xytext=(8, 0), textcoords="offset points", va="center", color=colour)


def label_steps(axes: Axes) -> None:
    """Set so few step labels below a panel that the labels do not overlap."""
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _finish(figure: Figure, path: Path, *, title: str, last_step: int) -> Figure:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="0.92")
        axes.set_axisbelow(True)
        label_steps(axes)
        axes.set_xlim(0, last_step)
    figure.suptitle(_plain(title), x=0.01, ha="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return figure
