"""Where the sequences of a stream begin and end.

A source without masks is one long text: sequence j has the targets `stream[j·T : (j+1)·T]`. So no token is a target twice in an
epoch, and all are but those after the last whole sequence, which only validation reads.

Of a masked source, chat, each sequence takes as many whole conversations as fit into T tokens, in their order, and the rest of
it is padding. Only a conversation longer than T is cut: it begins a sequence, its further tokens begin the next one, and other
conversations follow behind its end as behind any other.
"""

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np


def sequence_borders(
    n_tokens: int, max_seq_len: int, *, document_ends: Sequence[int] | None, whole: bool
) -> np.ndarray:
    """Borders between the sequences of a stream: sequence j has the targets [borders[j], borders[j + 1]), (sequences + 1,) int64.

    Args:
        document_ends: positions after each document's last token, growing, of a stream whose documents are not to be cut;
            None: they may be.
        whole: leave out a last sequence that has fewer than `max_seq_len` tokens for want of more; padded ones always count.
    """
    if document_ends is None:
        starts = np.arange(0, n_tokens + 1, max_seq_len, dtype=np.int64)
        return starts if whole or starts[-1] == n_tokens else np.append(starts, n_tokens)
    borders = [0]
    while borders[-1] < n_tokens:
        start = borders[-1]
        last = bisect_right(document_ends, start + max_seq_len) - 1  # the last document that ends inside the sequence
        fits = last >= 0 and document_ends[last] > start
        borders.append(document_ends[last] if fits else min(start + max_seq_len, n_tokens))
    return np.array(borders, dtype=np.int64)
