"""How likely a model finds texts: the engine below every figure.

A request is a text in ids, of which the last ones are scored, each given all before it. Requests are read in batches of about
equal length, filled up at the right, where a causal model does not look; so what stands beside a request changes nothing but
the rounding. A context that several requests share, such as that of the answers to a question, is read once, into a KV cache.
Logits are formed for scored ids alone, and never for a whole batch.
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

_HELD = 4  # times the tokens of a batch: of how many the cache may hold keys and values


@dataclass(frozen=True)
class Request:
    """Ids, of which those from `first` on are to be scored: at most max_seq_len + 1 of them are seen."""

    ids: Sequence[int] | np.ndarray
    first: int
    """1 or more: the first id of all is never scored, as nothing stands before it."""
    mask: np.ndarray | None = None
    """Whether each id from `first` on is scored, (len(ids) - first,) bool; None: all are."""

    def __post_init__(self) -> None:
        if not 1 <= self.first < len(self.ids):
            raise ValueError(
                f"of {len(self.ids)} ids those from number {self.first} on are to be scored: one must stand before them, and "
                "one must be there."
            )

    @property
    def scored(self) -> np.ndarray:
        """The ids that are scored."""
        ids = np.asarray(self.ids)[self.first :]
        return ids if self.mask is None else ids[self.mask]


class Score(NamedTuple):
    """What the model makes of a request."""

    nats: float
    """The negative log-likelihood of the scored ids, summed."""
    is_greedy: bool
    """Whether each scored id was the likeliest one."""


class NonFiniteScoreError(ValueError):
    """The model gives no likelihoods, of whatever it is asked."""


class RequestTooLongError(ValueError):
    """More ids are to be scored than the model can see at once."""


def truncate_to_context(request: Request, max_seq_len: int) -> Request:
    """The request as a model sees it: the oldest ids are left away where there are more than fit.

    Raises:
        RequestTooLongError: the scored ids alone do not fit.
    """
    cut = len(request.ids) - (max_seq_len + 1)
    if cut <= 0:
        return request
    if request.first - cut < 1:
        raise RequestTooLongError(
            f"{len(request.ids) - request.first} tokens are to be scored at once, and the model sees {max_seq_len}."
        )
    return replace(request, ids=request.ids[cut:], first=request.first - cut)


class _Unit(NamedTuple):
    """Requests that are read together in any case."""

    n_shared: int
    """Ids that they begin with and that are read once for all of them; 0: it is one request."""
    n_own: int
    """Ids that the longest of them has besides, but for the last, which is never read."""
    numbers: list[int]

    @property
    def n_read(self) -> int:
        """Tokens, the filling included."""
        return self.n_shared + len(self.numbers) * self.n_own

    @property
    def n_held(self) -> int:
        """Tokens whose keys and values are held: each request has those of its context for itself."""
        return len(self.numbers) * (self.n_shared + self.n_own)


def batch_requests(requests: Sequence[Request], *, batch_tokens: int) -> list[list[int]]:
    """Numbers of requests to be read together, the largest batch first: one that does not fit into memory fails at once.

    Args:
        batch_tokens: of a batch, its filling included; a longer request is a batch of its own. Where contexts are shared, the
            cache holds up to four times as many.
    """
    groups: list[list[int]] = []
    sizes: list[int] = []
    first = _Unit(0, 0, [])  # of the batch, to whose length the others are filled up
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
    """Requests of the same context together, as many as fit, where that saves a quarter of the work; others by themselves."""
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
    """What stands before the scored ids."""
    return np.asarray(request.ids[: request.first], dtype=np.int64).tobytes()


def score_requests(model: GPT, requests: Sequence[Request]) -> list[Score]:
    """The scores of some requests, read as one batch, in their order.

    Raises:
        RequestTooLongError: a request is longer than the model can see; `window` cuts it.
        NonFiniteScoreError: a likelihood is no number.
    """
    nats, greedy = token_losses(model, requests)
    if not np.isfinite(nats).all():
        raise NonFiniteScoreError("the model gives log-likelihoods that are no numbers: its weights are ruined.")
    ends = np.cumsum([len(request.scored) for request in requests]).tolist()
    starts = [0, *ends[:-1]]
    return [
        Score(float(nats[start:end].sum(dtype=np.float64)), bool(greedy[start:end].all()))
        for start, end in zip(starts, ends, strict=True)
    ]


def token_losses(model: GPT, requests: Sequence[Request]) -> tuple[np.ndarray, np.ndarray]:
    """Of every scored id of some requests, one after the other: its nats, and whether it was the likeliest.

    Returns:
        two arrays (scored ids,), fp32 and bool.
    """
    device = model.head.weight.device
    longest = max(len(request.ids) for request in requests) - 1
    if longest > model.config.max_seq_len:
        raise RequestTooLongError(
            f"a request of {longest + 1} tokens is more than the model can see: {model.config.max_seq_len}."
        )
    contexts = list(map(_context, requests))
    of_context = dict(zip(contexts, requests, strict=True))  # a request of each
    is_shared = len(of_context) < len(requests) and len({request.first for request in requests}) == 1
    n_shared = requests[0].first - 1 if is_shared else 0  # ids that are read once for all requests of a context
    ids = np.zeros((len(requests), longest + 1 - n_shared), dtype=np.int64)
    scored = np.zeros((len(requests), longest - n_shared), dtype=np.bool_)  # by the position that predicts it
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
