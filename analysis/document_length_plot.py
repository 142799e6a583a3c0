"""Plot the document lengths of a prepared source."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from analysis.plot_colours import COLOURS


def draw_document_lengths(lengths: np.ndarray, path: Path, *, name: str, max_seq_len: int) -> None:
    """Draw a histogram on a logarithmic axis, with the median and the sequence length marked.

    Args:
        lengths: document lengths in tokens, (documents,).
        path: the PNG file to write.
        name: name of the source.
        max_seq_len: tokens per sequence.
    """
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
        label=f"sequence length, {max_seq_len:,} tokens: {share:.1%} of documents are longer",
    )
    axes.set(xscale="log", xlabel="tokens, including end-of-text", ylabel="documents")
    figure.suptitle(f"Documents of {name}")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    figure.savefig(path, dpi=130)
