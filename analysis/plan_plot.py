"""The picture of a run that is still to come."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from analysis.run_plots import COLOURS, label_steps, line_style


def draw_plan(
    path: Path,
    *,
    title: str,
    steps: np.ndarray,
    shares: Mapping[str, np.ndarray],
    epochs: Mapping[str, np.ndarray],
    max_epochs: Mapping[str, float],
    learning_rates: np.ndarray,
    from_step: int,
) -> None:
    """The mix, the epochs of each source and the learning rate over the run, one above the other.

    Args:
        path: the picture.
        title: its heading.
        steps: (n,) where the curves are known.
        shares: of each source, (n,), its share of the sequences up to the next of them.
        epochs: of each source, (n,), passes before that step.
        max_epochs: of each source that has a limit.
        learning_rates: (n,).
        from_step: where the run goes on, or branches off from another.
    """
    figure = Figure(figsize=(11, 9), layout="constrained")
    mix, passes, rate = figure.subplots(3, 1, sharex=True, height_ratios=(4, 4, 2))
    names = list(shares)
    colours = [COLOURS[k % len(COLOURS)] for k in range(len(names))]
    mix.stackplot(
        steps, np.array(list(shares.values())) * 100, colors=colours, labels=names, alpha=0.85, step="post", linewidth=0
    )
    mix.set(title="Mix", ylabel="% of the sequences", ylim=(0, 100))
    handles, labels = mix.get_legend_handles_labels()  # areas are stacked from below: list them from above
    mix.legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    for k, (name, values) in enumerate(epochs.items()):
        passes.plot(steps, values, **line_style(k), linewidth=2, label=name)
    highest = max(float(values[-1]) for values in epochs.values())
    for most in sorted(
        most for most in set(max_epochs.values()) if most <= 4 * highest
    ):  # else it would only flatten the curves
        limited = ", ".join(name for name in epochs if max_epochs.get(name) == most)
        passes.axhline(most, color="0.4", linewidth=1)
        passes.annotate(f"limit of {limited}", (0, most), xytext=(4, 3), textcoords="offset points", color="0.3")
    passes.set(title="Passes over each source", ylabel="epochs")
    passes.set_ylim(bottom=0)
    passes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    rate.plot(steps, learning_rates, color=COLOURS[0], linewidth=2)
    rate.set(title="Learning rate", ylabel="learning rate", xlabel="step")
    rate.set_ylim(bottom=0)
    rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="0.92")
        axes.set_axisbelow(True)
        label_steps(axes)
        axes.set_xlim(0, steps[-1])
        if from_step:
            axes.axvline(
                from_step, color="black", linestyle=":", linewidth=1.5, label=f"begins after step {from_step:,}"
            )
    if from_step:
        rate.legend(handles=rate.lines[-1:], loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    figure.suptitle(title, x=0.01, ha="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
