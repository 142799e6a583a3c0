"""Judging a model: what a figure was measured on, with how many examples, and how sure it is.

    records ──records.py──> questions ──questions.py──┐
    streams of tokens ──────windows.py────────────────┴─> requests ──scoring.py──> scores ──> figures with their intervals
    prompts ──generation──> texts ──writing.py──────────────────────────────────────────────> figures with their intervals

Everything is a pure function of the model and the requests: the size of a batch, the number of ranks and where an evaluation was
interrupted change nothing but the rounding.
"""

from gpt_lightning.evaluation.confidence_intervals import Estimate, proportion, ratio
from gpt_lightning.evaluation.log_likelihood import Request, Score, TooLong, batches, score
from gpt_lightning.evaluation.multiple_choice import PROTOCOLS, Question, judge, put
from gpt_lightning.evaluation.question_template import BadQuestion, OtherFields, QuestionTemplate

__all__ = [
    "PROTOCOLS",
    "BadQuestion",
    "Estimate",
    "OtherFields",
    "Question",
    "QuestionTemplate",
    "Request",
    "Score",
    "TooLong",
    "batches",
    "judge",
    "proportion",
    "put",
    "ratio",
    "score",
]
