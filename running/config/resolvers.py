"""Resolvers that a config may use: `${micro_batch_up_to:64}` and `${vocab_size_at_least:512}`."""

import math
from typing import Any


def micro_batch_up_to(most: int, *, _root_: Any) -> int:
    """The largest micro-batch, at most `most`, that divides each rank's share of the global batch.

    If the ranks cannot share the global batch evenly, return `most`; `RunConfig` then raises the error.

    Args:
        most: limit, in sequences.
    """
    batch, trainer = _root_.global_batch, _root_.trainer
    ranks = trainer.devices, trainer.num_nodes
    if not all(isinstance(n, int) and n > 0 for n in (batch, *ranks)) or batch % math.prod(ranks):
        return most
    of_rank = batch // math.prod(ranks)
    return next(n for n in range(min(most, of_rank), 0, -1) if of_rank % n == 0)


def vocab_size_at_least(rows: int, *, _root_: Any) -> int:
    """Rows of the embedding: the larger of the tokenizer's size and `rows`, the size of the weights to start from."""
    return max(rows, int(_root_.tokenizer.model_vocab_size))
