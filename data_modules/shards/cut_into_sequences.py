"""Borders of the sequences in a token stream.

A source without masks is one long text: sequence j has the targets `stream[j·T : (j+1)·T]`. In an epoch, each token is
a target once, except the tokens after the last complete sequence, which only validation reads.

In a masked source (chat), each sequence takes as many whole conversations as fit into T tokens, in order, and is padded
to T. Only a conversation longer than T is cut: it starts a sequence, its remaining tokens start the next one, and other
conversations follow after its end.
"""

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np


def sequence_borders(
    n_tokens: int, max_seq_len: int, *, document_ends: Sequence[int] | None, whole: bool
) -> np.ndarray:
    """Return the borders between the sequences of a stream, (sequences + 1,) int64.

    Sequence j has the targets [borders[j], borders[j + 1]).

    Args:
        n_tokens: Length of the stream.
        max_seq_len: Sequence length in tokens.
        document_ends: Position after the last token of each document, in increasing order. Then only documents longer
            than `max_seq_len` are cut. None: documents may be cut anywhere.
        whole: Drop the last sequence if it has fewer than `max_seq_len` tokens. Ignored if `document_ends` is given, because
            those sequences are padded.
    """
    if document_ends is None:
        starts = np.arange(0, n_tokens + 1, max_seq_len, dtype=np.int64)
        return starts if whole or starts[-1] == n_tokens else np.append(starts, n_tokens)
    borders = [0]
    while borders[-1] < n_tokens:
        start = borders[-1]
        last = bisect_right(document_ends, start + max_seq_len) - 1  # the last document that ends within the sequence
        fits = last >= 0 and document_ends[last] > start
        borders.append(document_ends[last] if fits else min(start + max_seq_len, n_tokens))
    return np.array(borders, dtype=np.int64)
