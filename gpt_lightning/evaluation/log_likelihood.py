"""Compute log-likelihoods of texts under a model; all metrics are based on them.

A request is a sequence of token ids. The last ids are scored, each given all ids before it. Requests of
similar length are batched and padded on the right, which a causal model does not see, so batching only affects
rounding. A context shared by several requests, such as a question with several answers, is read once into a KV cache.
Logits are computed only for scored ids, in chunks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gpt_lightning.model import GPT
from gpt_lightning.model.eval_mode import eval_mode
from gpt_lightning.model.loss_head import CHUNK_BYTES

_HELD = 4  # the cache may hold keys and values of this many times the tokens of a batch


@dataclass(frozen=True)
class Request:
    """Token ids; the ids from index `first` on are scored. A model accepts at most max_seq_len + 1 ids."""

    ids: Sequence[int] | np.ndarray
    first: int
    """1 or more: the first id cannot be scored, because no id precedes it."""
    mask: np.ndarray | None = None
    """Which ids from `first` on are scored, (len(ids) - first,) bool; None: all."""

    def __post_init__(self) -> None:
        if not 1 <= self.first < len(self.ids):
            raise ValueError(
                f"first is {self.first}: it must be from 1 to {len(self.ids) - 1}, because the request has "
                f"{len(self.ids)} ids and at least one must come before and after the start of scoring."
            )

    @property
    def scored(self) -> np.ndarray:
        """Return the ids that are scored."""
        ids = np.asarray(self.ids)[self.first :]
        return ids if self.mask is None else ids[self.mask]


class Score(NamedTuple):
    """The model's score of a request."""

    nats: float
    """Negative log-likelihood, summed over the scored ids, in nats."""
    is_greedy: bool
    """Whether each scored id was the most likely one."""


class NonFiniteScoreError(ValueError):
    """The model computes log-likelihoods that are NaN or infinite."""


class RequestTooLongError(ValueError):
    """A request has more ids than the model's context can hold."""


def truncate_to_context(request: Request, max_seq_len: int) -> Request:
    """Drop the oldest ids of a request that is longer than the model's context.

    Args:
        request: The request.
        max_seq_len: Context length of the model, in tokens.

    Returns:
        A request of at most max_seq_len + 1 ids, with the same scored ids.

    Raises:
        RequestTooLongError: The scored ids alone do not fit.
    """
    cut = len(request.ids) - (max_seq_len + 1)
    if cut <= 0:
        return request
    if request.first - cut < 1:
        raise RequestTooLongError(
            f"a request has {len(request.ids) - request.first} tokens to score: it must have at most {max_seq_len}, "
            "the model's max_seq_len."
        )
    return replace(request, ids=request.ids[cut:], first=request.first - cut)


class _Unit(NamedTuple):
    """Requests that are always read together."""

    n_shared: int
    """Length of the requests' common prefix, which is read once; 0 for a single request."""
    n_own: int
    """Number of ids after the prefix in the longest request, without the last id, which is never read."""
    numbers: list[int]

    @property
    def n_read(self) -> int:
        """Number of tokens read, including padding."""
        return self.n_shared + len(self.numbers) * self.n_own

    @property
    def n_held(self) -> int:
        """Number of tokens whose keys and values are cached. Each request has its own copy of the context."""
        return len(self.numbers) * (self.n_shared + self.n_own)


def group_request_indices(requests: Sequence[Request], *, batch_tokens: int) -> list[list[int]]:
    """Group requests into batches, largest batch first, so that running out of memory shows at once.

    Args:
        requests: The requests.
        batch_tokens: Maximum number of tokens of a batch, including padding; a longer request is a batch of its own.
            The cache of shared contexts may hold up to four times as many.

    Returns:
        The indices of the requests of each batch.
    """
    groups: list[list[int]] = []
    sizes: list[int] = []
    first = _Unit(0, 0, [])  # the first of the batch; the others are padded to its length
    may_read = may_hold = -1
    for unit in sorted(_units(requests, batch_tokens), key=lambda unit: (-unit.n_shared, -unit.n_own, unit.numbers)):
        filled = unit._replace(n_own=first.n_own)
        if unit.n_shared != first.n_shared or filled.n_read > may_read or filled.n_held > may_hold:
            first = filled = unit
            may_read, may_hold = batch_tokens, _HELD * batch_tokens
            groups.append([])
            sizes.append(0)
        groups[-1] += unit.numbers
        sizes[-1] += filled.n_held
        may_read -= filled.n_read
        may_hold -= filled.n_held
    return [groups[n] for n in sorted(range(len(groups)), key=lambda n: -sizes[n])]


def _units(requests: Sequence[Request], batch_tokens: int) -> Iterator[_Unit]:
    """Group requests of the same context, if that saves a quarter of the work; leave the others single."""
    of_context: dict[bytes, list[int]] = {}
    for number, request in enumerate(requests):
        of_context.setdefault(_context(request), []).append(number)
    for numbers in of_context.values():
        n_shared = requests[numbers[0]].first - 1
        lengths = {number: len(requests[number].ids) - 1 for number in numbers}
        n_own = max(lengths.values()) - n_shared
        fit = min((batch_tokens - n_shared) // n_own, _HELD * batch_tokens // (n_shared + n_own))
        for part in (numbers[n : n + max(1, fit)] for n in range(0, len(numbers), max(1, fit))):
            if n_shared * (len(part) - 1) * 4 >= sum(lengths[number] for number in part):
                yield _Unit(n_shared, n_own, part)
            else:
                yield from (_Unit(0, lengths[number], [number]) for number in part)


def _context(request: Request) -> bytes:
    """Return the bytes of the ids before the scored ones, as a dictionary key."""
    return np.asarray(request.ids[: request.first], dtype=np.int64).tobytes()


def score_batch(model: GPT, requests: Sequence[Request]) -> list[Score]:
    """Score requests as one batch.

    Returns:
        The scores, in the order of the requests.

    Raises:
        RequestTooLongError: A request is longer than the model's context; `truncate_to_context` shortens it.
        NonFiniteScoreError: A log-likelihood is NaN or infinite.
    """
    nats, greedy = token_losses(model, requests)
    if not np.isfinite(nats).all():
        raise NonFiniteScoreError(
            "the model computes log-likelihoods that are NaN or infinite: its weights are damaged. Use an earlier "
            "checkpoint."
        )
    ends = np.cumsum([len(request.scored) for request in requests]).tolist()
    starts = [0, *ends[:-1]]
    return [
        Score(float(nats[start:end].sum(dtype=np.float64)), bool(greedy[start:end].all()))
        for start, end in zip(starts, ends, strict=True)
    ]


def token_losses(model: GPT, requests: Sequence[Request]) -> tuple[np.ndarray, np.ndarray]:
    """Compute the loss of every scored id of some requests, read as one batch.

    Returns:
        Two arrays of shape (scored ids,), in the order of the requests: the loss in nats, fp32, and whether the id was
            the most likely one, bool.

    Raises:
        RequestTooLongError: A request is longer than the model's context.
    """
    device = model.head.weight.device
    longest = max(len(request.ids) for request in requests) - 1
    if longest > model.config.max_seq_len:
        raise RequestTooLongError(
            f"a request has {longest + 1} tokens: it must have at most {model.config.max_seq_len + 1}, one more than "
            "the model's max_seq_len."
        )
    contexts = list(map(_context, requests))
    of_context = dict(zip(contexts, requests, strict=True))  # one request of each context
    is_shared = len(of_context) < len(requests) and len({request.first for request in requests}) == 1
    n_shared = requests[0].first - 1 if is_shared else 0  # ids that are read once for all requests of a context
    ids = np.zeros((len(requests), longest + 1 - n_shared), dtype=np.int64)
    scored = np.zeros(
        (len(requests), longest - n_shared), dtype=np.bool_
    )  # indexed by the position that predicts the id
    for row, request in enumerate(requests):
        n_ids = len(request.ids) - n_shared
        ids[row, :n_ids] = request.ids[n_shared:]
        scored[row, request.first - 1 - n_shared : n_ids - 1] = True if request.mask is None else request.mask
    token_ids = torch.from_numpy(ids).to(device)
    chosen = torch.from_numpy(scored).to(device)
    with eval_mode(model):
        cache = None
        if n_shared:
            shared = np.array([request.ids[:n_shared] for request in of_context.values()])
            cache = model.empty_cache(batch=len(shared), room=longest)
            model.hidden(torch.from_numpy(shared).to(device), cache)
            rows_of = {context: row for row, context in enumerate(of_context)}
            cache.keep([rows_of[context] for context in contexts])
        x = model.hidden(token_ids[:, :-1], cache)[chosen]  # (scored ids, d_model), row by row
        targets = token_ids[:, 1:][chosen]
        rows = max(1, CHUNK_BYTES // (model.config.vocab_size * 4))
        parts = [
            _score_chunk(model, x[n : n + rows], targets[n : n + rows]) for n in range(0, max(1, len(targets)), rows)
        ]
    nats, greedy = (torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True))
    return nats, greedy


def _score_chunk(model: GPT, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    logits = model.logits(x).float()
    return F.cross_entropy(logits, targets, reduction="none"), logits.argmax(dim=-1) == targets
