"""Plots of a law: predicted against measured losses, coefficients, and the best mix with prior and caps."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.plot_colours import COLOURS
from mix_laws.best_mix_search import BestMix
from mix_laws.fit_data import MixRuns
from mix_laws.fitted_mix_law import MixLaw

_COLUMNS = 4
_LOWEST = -8.0  # lower limit of exponents in plots; e^-8 nats is negligible


def draw_predictions(law: MixLaw, runs: MixRuns, path: Path) -> None:
    """Plot the predicted loss of each run against the measured loss. Runs are predicted from the other runs; held-out
    runs are shown too.
    """
    figure, panels = _panels(len(runs.validation), height=3.0)
    held_out = runs.held_out
    predicted = None if held_out is None else law.predict(held_out.ratios).reshape(held_out.losses.shape)
    for n, (axes, name) in enumerate(zip(panels, runs.validation, strict=True)):
        x, y = law.losses[:, n], law.check.predicted[:, n]
        axes.plot(x, y, "o", color=COLOURS[0], markersize=4, alpha=0.7, label="left out in turn")
        shown = [x, y]
        if held_out is not None and predicted is not None:
            axes.plot(held_out.losses[:, n], predicted[:, n], "x", color=COLOURS[1], markersize=4, label="held out")
            shown += [held_out.losses[:, n], predicted[:, n]]
        ends = [min(map(np.min, shown)), max(map(np.max, shown))]
        axes.plot(ends, ends, color="0.4", linewidth=1, label="as measured")
        axes.set(title=_plain(name))
    panels[0].legend(frameon=False, fontsize=9)
    figure.supxlabel("measured loss, nats per token")
    figure.supylabel("predicted without the run")
    _save(figure, path)


def draw_coefficients(law: MixLaw, runs: MixRuns, path: Path) -> None:
    """For each validation loss, plot each source's coefficient t with its interval.

    The smaller t, the more the source lowers that loss.
    """
    figure, panels = _panels(len(runs.validation), height=0.8 + 0.24 * len(runs.sources), sharey=True)
    low, high = law.t_interval
    rows = np.arange(len(runs.sources))[::-1]
    for n, (axes, name) in enumerate(zip(panels, runs.validation, strict=True)):
        own = np.array([source == name for source in runs.sources])
        for of, colour in ((~own, COLOURS[0]), (own, COLOURS[1])):
            t, left, right = (np.clip(values[n][of], _LOWEST, None) for values in (law.t, low, high))
            axes.hlines(rows[of], left, right, color=colour, linewidth=2)
            axes.plot(t, rows[of], "o", color=colour, markersize=5)
        axes.set(title=f"loss of {_plain(name)}, c = {law.c[n]:.2f}")
        axes.set_yticks(rows, [_plain(source) for source in runs.sources])
    figure.supxlabel(
        f"t, with its 95 % interval (cut off at {_LOWEST:g}, below which differences are negligible); red: the source "
        "itself"
    )
    _save(figure, path)


def draw_mixes(best: BestMix, law: MixLaw, sources: Sequence[str], chosen: np.ndarray, path: Path) -> None:
    """Plot the mix to train, the prior, the mix of the best run, and the caps."""
    figure = Figure(figsize=(9, 1.6 + 0.55 * len(sources)), layout="constrained")
    axes = figure.subplots()
    rows = np.arange(len(sources))[::-1].astype(float)
    bars = {"mix to train": chosen, "prior": best.prior, "mix of the best run": law.ratios[best.best_run]}
    for n, (label, mix) in enumerate(bars.items()):
        axes.barh(rows + 0.25 - 0.25 * n, 100 * mix, height=0.22, color=COLOURS[(0, 5, 4)[n]], label=label)
    capped = best.aim.caps < 1
    if capped.any():
        axes.vlines(
            100 * best.aim.caps[capped],
            rows[capped] - 0.42,
            rows[capped] + 0.42,
            color=COLOURS[1],
            linewidth=2,
            label="cap",
        )
    axes.set_yticks(rows, [_plain(source) for source in sources])
    axes.set(xlabel="% of the sequences", xlim=(0, None))
    axes.legend(frameon=False, loc="lower right")
    _dress(axes)
    _save(figure, path)


def _panels(n: int, *, height: float, sharey: bool = False) -> tuple[Figure, list[Axes]]:
    columns = min(n, _COLUMNS)
    rows = math.ceil(n / columns)
    figure = Figure(figsize=(max(3.4 * columns, 5), height * rows + 0.6), layout="constrained")
    panels = figure.subplots(rows, columns, sharey=sharey, squeeze=False).ravel()
    for axes in panels[n:]:
        axes.set_visible(False)
    for axes in panels[:n]:
        axes.title.set_fontsize(10)
        _dress(axes)
    return figure, list(panels[:n])


def _dress(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.92")
    axes.set_axisbelow(True)


def _plain(text: str) -> str:
    return text.replace("$", r"\$")


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
