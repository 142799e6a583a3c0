"""Plot the plan of a run."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.plot_colours import COLOURS
from analysis.run_plots import label_steps, line_style


@dataclass(frozen=True, kw_only=True)
class PlannedCurves:
    """The mix, the epochs and the learning rate of a planned run at some steps."""

    steps: np.ndarray
    """(n,) int64, ascending: optimizer steps before each point."""
    shares: Mapping[str, np.ndarray]
    """Source -> (n,): fraction, 0 to 1, of the sequences between a point and the next point."""
    epochs: Mapping[str, np.ndarray]
    """Source -> (n,): passes over the source's sequences before a point."""
    max_epochs: Mapping[str, float]
    """Source -> limit of passes, for sources that have a limit."""
    learning_rates: np.ndarray
    """(n,): the learning rate of the step after a point; at the last point, of the last step."""
    from_step: int
    """The step after which the run resumes or branches off; 0 for a new run."""


def draw_plan(path: Path, curves: PlannedCurves, *, title: str) -> None:
    """Draw the mix, the epochs of each source and the learning rate over the run, one above the other.

    Args:
        path: path of the PNG file.
        curves: the curves.
        title: heading of the plot.
    """
    figure = Figure(figsize=(11, 9), layout="constrained")
    mix, passes, rate = figure.subplots(3, 1, sharex=True, height_ratios=(4, 4, 2))
    _draw_mix(mix, curves)
    _draw_epochs(passes, curves)
    _draw_learning_rate(rate, curves)
    for axes in figure.axes:
        _finish(axes, curves)
    if curves.from_step:
        rate.legend(handles=rate.lines[-1:], loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    figure.suptitle(title, x=0.01, ha="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _draw_mix(axes: Axes, curves: PlannedCurves) -> None:
    names = list(curves.shares)
    colours = [COLOURS[k % len(COLOURS)] for k in range(len(names))]
    percent = np.array(list(curves.shares.values())) * 100
    axes.stackplot(curves.steps, percent, colors=colours, labels=names, alpha=0.85, step="post", linewidth=0)
    axes.set(title="Mix", ylabel="% of sequences", ylim=(0, 100))
    handles, labels = axes.get_legend_handles_labels()  # areas are stacked from the bottom; list them from the top
    axes.legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def _draw_epochs(axes: Axes, curves: PlannedCurves) -> None:
    for k, (name, values) in enumerate(curves.epochs.items()):
        axes.plot(curves.steps, values, **line_style(k), linewidth=2, label=name)
    highest = max(float(values[-1]) for values in curves.epochs.values())
    # a limit far above the curves would flatten them
    for most in sorted(most for most in set(curves.max_epochs.values()) if most <= 4 * highest):
        limited = ", ".join(name for name in curves.epochs if curves.max_epochs.get(name) == most)
        axes.axhline(most, color="0.4", linewidth=1)
        axes.annotate(f"limit of {limited}", (0, most), xytext=(4, 3), textcoords="offset points", color="0.3")
    axes.set(title="Passes over each source", ylabel="epochs")
    axes.set_ylim(bottom=0)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def _draw_learning_rate(axes: Axes, curves: PlannedCurves) -> None:
    axes.plot(curves.steps, curves.learning_rates, color=COLOURS[0], linewidth=2)
    axes.set(title="Learning rate", ylabel="learning rate", xlabel="step")
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))


def _finish(axes: Axes, curves: PlannedCurves) -> None:
    """Draw the frame, the grid, the step labels and a line where the run starts."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.92")
    axes.set_axisbelow(True)
    label_steps(axes)
    axes.set_xlim(0, curves.steps[-1])
    if curves.from_step:
        label = f"starts after step {curves.from_step:,}"
        axes.axvline(curves.from_step, color="black", linestyle=":", linewidth=1.5, label=label)
