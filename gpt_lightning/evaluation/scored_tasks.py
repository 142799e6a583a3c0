"""Tasks that are scored: what is put to a model, and what its scores come to."""

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
    """The task's name; of perplexity, with the name of the source or the file."""
    protocol: str
    """How the task is put to a model. It is part of the name of every figure."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """What the figures are measured on, as evaluation.json says it."""
    left_out: Sequence[str] = ()
    """Records that cannot be asked, and why."""


@dataclass(frozen=True, kw_only=True)
class ScoredTask(TaskDescription):
    """Requests, and how their scores become figures."""

    requests: Sequence[Request]
    figures: Callable[[Sequence[Score]], dict[str, Estimate]]
    """The scores of all requests -> the figures, by metric."""
    examples: Callable[[Sequence[Score]], Iterable[dict[str, Any]]]
    """The scores of all requests -> what came of each example."""
    cut: Sequence[str] = ()
    """Examples whose beginning does not fit into the model's window."""
    chance: float | None = None
    """The share of examples that blind guessing gets right; None: there is nothing to choose from."""


def sample_evenly(items: Sequence[T], limit: int | None) -> Sequence[T]:
    """`limit` of the items, evenly over all of them, so the same ones each time; None: all."""
    if limit is None or limit >= len(items):
        return items
    return [items[n * len(items) // limit] for n in range(limit)]


def read_questions(
    rows: Iterable[tuple[str, Any]], template: QuestionTemplate, *, limit: int | None = None
) -> tuple[list[Question], list[str]]:
    """The questions that records ask, and why others ask none.

    Args:
        rows: (where it stands, what stands there) of each record.
        limit: so many records alone, spread evenly over all of them: the same ones each time.

    Raises:
        ValueError: a record is of another kind, or there is none that can be asked.
    """
    questions, left_out = [], []
    for where, row in sample_evenly(list(rows), limit):
        if not isinstance(row, Mapping):
            left_out.append(f"{where}: {row if isinstance(row, ValueError) else 'is no record with fields'}")
            continue
        try:
            questions.append(template.question(row, where))
        except MissingFieldError as error:
            raise ValueError(
                f"{where}: {error}. The task reads other records, or its template wants mending."
            ) from error
        except BadQuestionError as error:
            left_out.append(f"{where}: {error}")
    if not questions:
        raise ValueError(f"there is no question to be asked; {left_out[0] if left_out else 'there are no records'}.")
    return questions, left_out


def question_task(
    description: TaskDescription, questions: Sequence[Question], tokenizer: Tokenizer, *, max_seq_len: int
) -> ScoredTask:
    """Questions, put as the description's protocol says.

    Args:
        max_seq_len: tokens in the model's window.

    Raises:
        ValueError: an answer alone does not fit into the model's window, or there is no such protocol.
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
    """Of a guess among each question's answers."""
    if any(len(question.answers) == 1 for question in questions):
        return None
    return sum(1 / len(question.answers) for question in questions) / len(questions)


def text_task(
    description: TaskDescription, requests: Sequence[Request], tokenizer: Tokenizer, *, cut: Sequence[str] = ()
) -> ScoredTask:
    """The windows of a text, or the conversations of a chat.

    Args:
        cut: examples whose beginning does not fit into the model's window.
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
