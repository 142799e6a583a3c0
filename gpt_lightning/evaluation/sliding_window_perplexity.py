"""Perplexity and bits per byte of a token stream, read in sliding windows.

    ids:      e t0 t1 t2 t3 t4 t5 t6 …      e: the end-of-text id before the first document
    window 0: e t0 t1 t2 t3                 scores t0 … t3 (max_seq_len 4)
    window 1:       t1 t2 t3 t4 t5          scores t4 t5 (stride 2), each given at least max_seq_len - stride ids

With stride = max_seq_len, the windows equal the sequences of training and validation. A smaller stride gives each token
more context, and costs max_seq_len / stride times as much.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from gpt_lightning.evaluation.confidence_intervals import Estimate, ratio_interval
from gpt_lightning.evaluation.log_likelihood import Request, Score
from gpt_lightning.evaluation.multiple_choice import exp


def sliding_windows(n_tokens: int, *, max_seq_len: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """Yield (start, first, stop) of each window. The model reads tokens [start, stop) and scores tokens [first, stop).

    Together the windows score every token once.

    Args:
        n_tokens: Length of the stream.
        max_seq_len: Context length of the model, in tokens.
        stride: Number of tokens that each window after the first scores.

    Raises:
        ValueError: The stride is not from 1 to max_seq_len.
    """
    if not 1 <= stride <= max_seq_len:
        raise ValueError(f"stride is {stride}: it must be from 1 to {max_seq_len}, the model's max_seq_len.")
    first, stop = 0, min(max_seq_len, n_tokens)
    while first < n_tokens:
        yield max(0, first + stride - max_seq_len) if first else 0, first, stop
        first, stop = stop, min(stop + stride, n_tokens)


def text_requests(ids: np.ndarray, *, max_seq_len: int, stride: int) -> list[Request]:
    """Build one request per window of a stream.

    Args:
        ids: (tokens + 1,), beginning with an end-of-text id.
        max_seq_len: Context length of the model, in tokens.
        stride: Number of tokens that each window after the first scores.
    """
    return [
        Request(ids[start : stop + 1], first + 1 - start)
        for start, first, stop in sliding_windows(len(ids) - 1, max_seq_len=max_seq_len, stride=stride)
    ]


def summarize_perplexity(
    requests: Sequence[Request], scores: Sequence[Score], bytes_per_id: np.ndarray
) -> dict[str, Estimate]:
    """Compute loss, perplexity and bits per byte.

    The windows count as independent examples; `n` is the number of windows. Special tokens contribute bits but no
    bytes.

    Args:
        requests: The windows.
        scores: The score of each window.
        bytes_per_id: (vocab,) number of UTF-8 bytes of each token.

    Returns:
        `loss`, mean nats per scored token; `perplexity`, exp of the loss; `bits_per_byte`, which is comparable between
        tokenizers.

    Raises:
        ValueError: No token is scored.
    """
    nats = np.array([score.nats for score in scores])
    n_tokens = [len(request.scored) for request in requests]
    n_bytes = [int(bytes_per_id[request.scored].sum()) for request in requests]
    loss = ratio_interval(nats, n_tokens)
    return {
        "loss": loss,
        "perplexity": loss.through(exp),
        "bits_per_byte": ratio_interval(nats / math.log(2), n_bytes),
    }


def mean_over_sources(estimates: Sequence[Estimate]) -> Estimate:
    """Return the unweighted mean of independent estimates; `n` is the total number of examples."""
    value = sum(e.value for e in estimates) / len(estimates)
    half = math.sqrt(sum(((e.high - e.low) / 2) ** 2 for e in estimates)) / len(estimates)
    return Estimate(value, value - half, value + half, sum(e.n for e in estimates))
