"""Multiple-choice questions: encode them for a model, and compute metrics from its scores.

The protocol is part of the name of every metric:

    harness     as lm-evaluation-harness: context and answer are encoded as one text, and an empty context becomes an
                end-of-text id. The model chooses the most likely answer (acc), normalised per character (acc_norm) or
                per byte (acc_bytes).
    completion  as llm.c: context and answer are encoded separately. The model chooses the most likely answer (acc),
                or the answer that is most likely per token (acc_norm).

A question with a single answer, such as LAMBADA's last word, is correct if each token of the answer is the most likely
token.
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
    """A context, and one or more answers of which one is correct."""

    context: str
    answers: Sequence[str]
    gold: int
    """Index of the correct answer, from 0."""
    where: str
    """Location of the record, such as file and line, for error messages."""


class EncodedQuestion(NamedTuple):
    """A question as token ids."""

    requests: list[Request]
    """One per answer."""
    n_bytes: int
    """Length of the correct answer as scored, in UTF-8 bytes."""
    n_cut: int
    """Number of context ids that were cut because they exceed the model's context, summed over all answers."""


def encode_question(question: Question, tokenizer: Tokenizer, *, protocol: str, max_seq_len: int) -> EncodedQuestion:
    """Encode a question.

    Args:
        question: The question.
        tokenizer: The model's tokenizer.
        protocol: One of `QUESTION_PROTOCOLS`.
        max_seq_len: Context length of the model, in tokens.

    Raises:
        RequestTooLongError: An answer alone does not fit into the model's context.
        KeyError: The protocol is unknown.
    """
    encode = _ENCODINGS[protocol]
    encoded = [encode(tokenizer, question.context, answer) for answer in question.answers]
    whole = [Request([*context, *answer], len(context)) for context, answer, _ in encoded]
    try:
        seen = [truncate_to_context(request, max_seq_len) for request in whole]
    except RequestTooLongError as error:
        raise RequestTooLongError(f"{question.where}: an answer is too long: {error}") from error
    n_cut = sum(len(a.ids) - len(b.ids) for a, b in zip(whole, seen, strict=True))
    return EncodedQuestion(seen, len(encoded[question.gold].text.encode()), n_cut)


class _Encoded(NamedTuple):
    context: list[int]
    answer: list[int]
    text: str  # the text of the answer's ids


def _encode_as_one(tokenizer: Tokenizer, context: str, answer: str) -> _Encoded:
    kept = context.rstrip()
    text = f"{context[len(kept) :]} {answer}"  # spaces at the end of a context are encoded with the word after them
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
    """The result of one question."""

    chosen: dict[str, int]
    """Metric -> index of the answer that the model chooses."""
    right: dict[str, bool]
    nats: float
    """Loss of the correct answer, in nats."""


def score_question(
    question: Question, scores: Sequence[Score], n_tokens: Sequence[int], *, protocol: str
) -> QuestionScore:
    """Determine which answer the model chooses.

    Args:
        question: The question.
        scores: Score of each answer.
        n_tokens: Number of scored tokens of each answer.
        protocol: One of `QUESTION_PROTOCOLS`.
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
    """Compute the metrics of a task.

    Args:
        verdicts: Results of all questions, at least one.
        n_bytes: UTF-8 bytes of each correct answer.

    Returns:
        Metric -> estimate: the accuracies; `gold_bits_per_byte`, the loss of the correct answers in bits per UTF-8
        byte, which improves long before accuracy does; and for questions with a single answer `perplexity`, exp of the
        mean loss in nats per answer.
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
    """Return exp(nats), or infinity instead of an OverflowError for a very bad model."""
    return math.exp(nats) if nats < 700 else math.inf
