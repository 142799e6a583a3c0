"""The picture of a prepared source: how long its documents are."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from analysis.run_plots import COLOURS


def draw_document_lengths(lengths: np.ndarray, path: Path, *, name: str, max_seq_len: int) -> None:
    """A histogram on a logarithmic axis, with the median and the length of a sequence; `lengths` in tokens, (documents,)."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    low, high = max(1, int(lengths.min())), int(lengths.max()) + 1
    bins = np.geomspace(low, max(high, low + 2), 50).tolist()
    axes.hist(lengths, bins=bins, color=COLOURS[5], edgecolor=COLOURS[0], linewidth=0.6)
    median = float(np.median(lengths))
    axes.axvline(median, color=COLOURS[1], linewidth=2, label=f"median, {median:,.0f} tokens")
    share = float((lengths > max_seq_len).mean())
    axes.axvline(
        max_seq_len,
        color="black",
        linestyle="--",
        linewidth=1.5,
        label=f"a sequence, {max_seq_len:,} tokens: {share:.1%} are longer",
    )
    axes.set(xscale="log", xlabel="tokens, end-of-text included", ylabel="documents")
    figure.suptitle(f"Documents of {name}")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    figure.savefig(path, dpi=130)
