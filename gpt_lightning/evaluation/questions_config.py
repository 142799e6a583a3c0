"""Typed settings of a multiple-choice task in conf/task."""

from dataclasses import dataclass
from typing import Literal

from gpt_lightning.evaluation.question_template import QuestionTemplate
from gpt_lightning.hub_dataset_config import HubDataset


@dataclass(frozen=True, kw_only=True)
class QuestionsConfig(QuestionTemplate):
    """A task of kind `questions`: choose the right answer of each record."""

    kind: Literal["questions"] = "questions"
    """What the task measures; see `running.evaluation.task_config`."""
    protocol: Literal["harness", "completion"]
    """How a question is encoded and scored: `harness` as lm-evaluation-harness does, `completion` as llm.c does."""
    hub: HubDataset | None
    """The dataset on the hub that holds the records; None: the hub has none, so set path=…."""
