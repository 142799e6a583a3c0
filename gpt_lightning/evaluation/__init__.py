"""Evaluate a model: metrics with their confidence intervals, number of examples and data.

    records ──question_template──> questions ──multiple_choice──┐
    streams of tokens ──sliding_window_perplexity───────────────┴──> requests ──log_likelihood──> scores ──> metrics
    prompts ──generation──> texts ──generated_text_quality─────────────────────────────────────────────────> metrics

All results are pure functions of the model and the requests. Batch size, number of ranks and interruptions only affect
rounding.
"""

from gpt_lightning.evaluation.confidence_intervals import Estimate, proportion_interval, ratio_interval
from gpt_lightning.evaluation.log_likelihood import (
    Request,
    RequestTooLongError,
    Score,
    group_request_indices,
    score_batch,
)
from gpt_lightning.evaluation.multiple_choice import QUESTION_PROTOCOLS, Question, encode_question, score_question
from gpt_lightning.evaluation.question_template import BadQuestionError, MissingFieldError, QuestionTemplate
from gpt_lightning.evaluation.questions_config import QuestionsConfig

__all__ = [
    "QUESTION_PROTOCOLS",
    "BadQuestionError",
    "Estimate",
    "MissingFieldError",
    "Question",
    "QuestionTemplate",
    "QuestionsConfig",
    "Request",
    "RequestTooLongError",
    "Score",
    "encode_question",
    "group_request_indices",
    "proportion_interval",
    "ratio_interval",
    "score_batch",
    "score_question",
]
