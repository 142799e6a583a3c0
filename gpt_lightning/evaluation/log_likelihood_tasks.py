"""Evaluation tasks based on log-likelihoods: the requests of a task, and how scores become metrics."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any, TypeVar

import numpy as np

from gpt_lightning.evaluation import multiple_choice as q
from gpt_lightning.evaluation import sliding_window_perplexity
from gpt_lightning.evaluation.confidence_intervals import Estimate
from gpt_lightning.evaluation.log_likelihood import Request, Score
from gpt_lightning.evaluation.multiple_choice import Question, QuestionScore
from gpt_lightning.evaluation.question_template import BadQuestionError, MissingFieldError, QuestionTemplate
from gpt_lightning.tokenizer import Tokenizer

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class TaskDescription:
    """A task's name, protocol and data."""

    name: str
    """Name of the task. For perplexity, the name includes the source or file."""
    protocol: str
    """How the task is presented to the model; part of the name of every metric."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """Description of the evaluation data, as written to evaluation.json."""
    left_out: Sequence[str] = ()
    """Records that were skipped, each with the reason."""


@dataclass(frozen=True, kw_only=True)
class ScoredTask(TaskDescription):
    """Requests, and functions that turn their scores into metrics."""

    requests: Sequence[Request]
    figures: Callable[[Sequence[Score]], dict[str, Estimate]]
    """Scores of all requests -> estimates by metric."""
    examples: Callable[[Sequence[Score]], Iterable[dict[str, Any]]]
    """Scores of all requests -> one result per example."""
    cut: Sequence[str] = ()
    """Examples whose beginning was cut because they exceed the model's context."""
    chance: float | None = None
    """Expected accuracy of random guessing; None if there is nothing to choose from."""


def sample_evenly(items: Sequence[T], limit: int | None) -> Sequence[T]:
    """Return `limit` items, spread evenly and always the same; None: all."""
    if limit is None or limit >= len(items):
        return items
    return [items[n * len(items) // limit] for n in range(limit)]


def read_questions(
    rows: Iterable[tuple[str, Any]], template: QuestionTemplate, *, limit: int | None = None
) -> tuple[list[Question], list[str]]:
    """Convert records to questions.

    Args:
        rows: (location, content) of each record.
        template: How to convert a record.
        limit: Use only this many records, spread evenly and always the same; None: all.

    Returns:
        (the questions, one message per record that was skipped)

    Raises:
        ValueError: A record lacks a field of the task, or no record forms a question.
    """
    questions, left_out = [], []
    for where, row in sample_evenly(list(rows), limit):
        if not isinstance(row, Mapping):
            left_out.append(f"{where}: {row if isinstance(row, ValueError) else 'it is not an object with fields'}")
            continue
        try:
            questions.append(template.question(row, where))
        except MissingFieldError as error:
            raise ValueError(f"{where}: {error}. Use the data of this task, or correct its template.") from error
        except BadQuestionError as error:
            left_out.append(f"{where}: {error}")
    if not questions:
        raise ValueError(f"no record forms a question: {left_out[0] if left_out else 'the file has no records'}.")
    return questions, left_out


def question_task(
    description: TaskDescription, questions: Sequence[Question], tokenizer: Tokenizer, *, max_seq_len: int
) -> ScoredTask:
    """Build a task from questions.

    Args:
        description: Name, protocol and data of the task.
        questions: At least one.
        tokenizer: The model's tokenizer.
        max_seq_len: Context length of the model, in tokens.

    Raises:
        ValueError: An answer alone does not fit into the model's context, or the protocol is unknown.
    """
    protocol = description.protocol
    if protocol not in q.QUESTION_PROTOCOLS:
        raise ValueError(f"protocol is {protocol!r}: it must be {' or '.join(q.QUESTION_PROTOCOLS)}.")
    put = [q.encode_question(question, tokenizer, protocol=protocol, max_seq_len=max_seq_len) for question in questions]
    requests = [request for one in put for request in one.requests]
    borders = [0, *accumulate(len(one.requests) for one in put)]

    def verdicts(scores: Sequence[Score]) -> list[QuestionScore]:
        return [
            q.score_question(question, scores[a:b], [len(r.scored) for r in requests[a:b]], protocol=protocol)
            for question, (a, b) in zip(questions, pairwise(borders), strict=True)
        ]

    def examples(scores: Sequence[Score]) -> Iterable[dict[str, Any]]:
        for question, verdict, (a, b) in zip(questions, verdicts(scores), pairwise(borders), strict=True):
            nats = [round(score.nats, 6) for score in scores[a:b]]
            yield {
                "where": question.where,
                "gold": question.gold,
                "nats": nats,
                "chosen": verdict.chosen,
            } | verdict.right

    return ScoredTask(
        **vars(description),
        requests=requests,
        figures=lambda scores: q.summarize_scores(verdicts(scores), [one.n_bytes for one in put]),
        examples=examples,
        cut=[question.where for question, one in zip(questions, put, strict=True) if one.n_cut],
        chance=_chance(questions),
    )


def _chance(questions: Sequence[Question]) -> float | None:
    """Return the expected accuracy of random guessing."""
    if any(len(question.answers) == 1 for question in questions):
        return None
    return sum(1 / len(question.answers) for question in questions) / len(questions)


def text_task(
    description: TaskDescription, requests: Sequence[Request], tokenizer: Tokenizer, *, cut: Sequence[str] = ()
) -> ScoredTask:
    """Build a task from the windows of a text, or from conversations.

    Args:
        description: Name, protocol and data of the task.
        requests: The windows or conversations.
        tokenizer: The model's tokenizer.
        cut: Examples whose beginning was cut because they exceed the model's context.
    """
    bytes_per_id = np.array(tokenizer.bytes_per_id())

    def examples(scores: Sequence[Score]) -> Iterable[dict[str, Any]]:
        for number, (request, score) in enumerate(zip(requests, scores, strict=True)):
            yield {"window": number, "tokens": len(request.scored), "nats": round(score.nats, 6)}

    return ScoredTask(
        **vars(description),
        requests=requests,
        figures=lambda scores: sliding_window_perplexity.summarize_perplexity(requests, scores, bytes_per_id),
        examples=examples,
        cut=cut,
    )
