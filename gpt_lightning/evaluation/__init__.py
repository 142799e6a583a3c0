"""Judging a model: what a figure was measured on, with how many examples, and how sure it is.

    records ──question_template──> questions ──multiple_choice──┐
    streams of tokens ──sliding_window_perplexity───────────────┴─> requests ──log_likelihood──> scores ──> metrics, intervals
    prompts ──generation──> texts ──generation_metrics────────────────────────────────────────────────────> metrics, intervals

Everything is a pure function of the model and the requests: the size of a batch, the number of ranks and where an evaluation was
interrupted change nothing but the rounding.
"""

from gpt_lightning.evaluation.confidence_intervals import Estimate, proportion_interval, ratio_interval
from gpt_lightning.evaluation.log_likelihood import Request, RequestTooLongError, Score, batch_requests, score_requests
from gpt_lightning.evaluation.multiple_choice import QUESTION_PROTOCOLS, Question, encode_question, score_question
from gpt_lightning.evaluation.question_template import BadQuestionError, MissingFieldError, QuestionTemplate

__all__ = [
    "QUESTION_PROTOCOLS",
    "BadQuestionError",
    "Estimate",
    "MissingFieldError",
    "Question",
    "QuestionTemplate",
    "Request",
    "RequestTooLongError",
    "Score",
    "batch_requests",
    "encode_question",
    "proportion_interval",
    "ratio_interval",
    "score_question",
    "score_requests",
]
