"""Questions with answers to choose from, how they are put to a model, and what its scores come to.

The protocol is part of every figure's name:

    harness     lm-evaluation-harness's: context and answer are encoded as one text, an empty context is an end-of-text id.
                The model chooses the likeliest answer (acc), per character (acc_norm) or per byte (acc_bytes).
    completion  llm.c's: context and answer are encoded apart. The model chooses the likeliest answer (acc), per token (acc_norm).

A question with a single answer, such as LAMBADA's last word, is right when each of its tokens is the likeliest.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gpt_lightning.evaluation.confidence_intervals import Estimate, proportion_interval, ratio_interval
from gpt_lightning.evaluation.log_likelihood import Request, RequestTooLongError, Score, truncate_to_context
from gpt_lightning.tokenizer import Tokenizer


@dataclass(frozen=True)
class Question:
    """A context, and one or more answers of which one is right."""

    context: str
    answers: Sequence[str]
    gold: int
    """Which of the answers is right, counted from 0."""
    where: str
    """Its place in the file it comes from."""


class EncodedQuestion(NamedTuple):
    """A question as a model reads it."""

    requests: list[Request]
    """One an answer."""
    n_bytes: int
    """UTF-8 bytes of the right answer, as it is scored."""
    n_cut: int
    """Ids of its context that do not fit into the model's window, over all answers."""


def encode_question(question: Question, tokenizer: Tokenizer, *, protocol: str, max_seq_len: int) -> EncodedQuestion:
    """Encode a question as the protocol says.

    Raises:
        RequestTooLongError: an answer alone does not fit into the model's window.
        KeyError: there is no such protocol.
    """
    encode = _ENCODINGS[protocol]
    encoded = [encode(tokenizer, question.context, answer) for answer in question.answers]
    whole = [Request([*context, *answer], len(context)) for context, answer, _ in encoded]
    try:
        seen = [truncate_to_context(request, max_seq_len) for request in whole]
    except RequestTooLongError as error:
        raise RequestTooLongError(f"{question.where}: of an answer {error}") from error
    n_cut = sum(len(a.ids) - len(b.ids) for a, b in zip(whole, seen, strict=True))
    return EncodedQuestion(seen, len(encoded[question.gold].text.encode()), n_cut)


class _Encoded(NamedTuple):
    context: list[int]
    answer: list[int]
    text: str  # that the answer's ids spell


def _encode_as_one(tokenizer: Tokenizer, context: str, answer: str) -> _Encoded:
    kept = context.rstrip()
    text = f"{context[len(kept) :]} {answer}"  # spaces at a context's end belong to the word after them
    if not kept:
        return _Encoded([tokenizer.eot_id], tokenizer.encode(text), text)
    n_context = len(tokenizer.encode(kept))
    whole = tokenizer.encode(kept + text)
    return _Encoded(whole[:n_context], whole[n_context:], text)


def _encode_apart(tokenizer: Tokenizer, context: str, answer: str) -> _Encoded:
    text = f" {answer}"
    return _Encoded(tokenizer.encode(context) or [tokenizer.eot_id], tokenizer.encode(text), text)


_ENCODINGS: Mapping[str, Callable[[Tokenizer, str, str], _Encoded]] = {
    "harness": _encode_as_one,
    "completion": _encode_apart,
}
QUESTION_PROTOCOLS = tuple(_ENCODINGS)


class QuestionScore(NamedTuple):
    """What came of a question."""

    chosen: dict[str, int]
    """The answer that is taken, by metric."""
    right: dict[str, bool]
    nats: float
    """Of the right answer."""


def score_question(
    question: Question, scores: Sequence[Score], n_tokens: Sequence[int], *, protocol: str
) -> QuestionScore:
    """Which answer the model takes.

    Args:
        scores: of each answer.
        n_tokens: scored ones of each answer.
    """
    gold = question.gold
    if len(scores) == 1:
        return QuestionScore({}, {"acc": scores[0].is_greedy}, scores[0].nats)
    likelihoods = -np.array([score.nats for score in scores])
    sizes: dict[str, Sequence[int]] = {"acc": [1] * len(scores)}
    if protocol == "completion":
        sizes["acc_norm"] = n_tokens
    else:
        sizes["acc_norm"] = [len(answer) for answer in question.answers]
        sizes["acc_bytes"] = [len(answer.encode()) for answer in question.answers]
    chosen = {metric: int(np.argmax(likelihoods / np.array(size, dtype=float))) for metric, size in sizes.items()}
    return QuestionScore(chosen, {metric: answer == gold for metric, answer in chosen.items()}, scores[gold].nats)


def summarize_scores(verdicts: Sequence[QuestionScore], n_bytes: Sequence[int]) -> dict[str, Estimate]:
    """The figures of a task, by metric.

    `gold_bits_per_byte` is what the right answers cost, in bits, per UTF-8 byte of theirs: it moves long before accuracy does.
    Questions with a single answer have `perplexity` besides, of the answer as one word: exp of the mean nats.

    Args:
        n_bytes: of each right answer.

    Raises:
        ValueError: there are none.
    """
    metrics = {
        metric: proportion_interval(sum(verdict.right[metric] for verdict in verdicts), len(verdicts))
        for metric in verdicts[0].right
    }
    nats = [verdict.nats for verdict in verdicts]
    metrics["gold_bits_per_byte"] = ratio_interval(np.array(nats) / math.log(2), n_bytes)
    if not verdicts[0].chosen:
        metrics["perplexity"] = ratio_interval(nats, np.ones(len(nats))).through(exp)
    return metrics


def exp(nats: float) -> float:
    """Of a model that knows nothing it is infinite, and no error."""
    return math.exp(nats) if nats < 700 else math.inf
