"""Typed settings of the tasks of evaluate.py: conf/task/<name>.yaml. The key `kind` chooses the dataclass."""

from dataclasses import dataclass
from typing import Literal

from gpt_lightning.evaluation import QuestionsConfig
from gpt_lightning.hub_dataset_config import HubDataset
from running.config import compose
from running.config.settings_parser import Count, parse


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """A task of kind `text`: perplexity on the validation splits of a run, or on the text that data=… names."""

    kind: Literal["text"]
    """What the task measures."""


@dataclass(frozen=True, kw_only=True)
class ConversationsConfig:
    """A task of kind `conversations`: perplexity of the assistant's messages."""

    kind: Literal["conversations"]
    """What the task measures."""
    hub: HubDataset | None
    """The dataset on the hub that holds the records; None: the hub has none, so set path=…."""
    fields: dict[str, str | None]
    """Field in our terms (instruction, input, output; or messages) -> name of the field in the records; null: the
    records do not have this field."""


@dataclass(frozen=True, kw_only=True)
class WritingConfig:
    """A task of kind `writing`: statistics of generated texts."""

    kind: Literal["writing"]
    """What the task measures."""
    language: Literal["python"] | None
    """`python`: measure whether prompt plus continuation is valid Python; None: do not."""
    mode: Literal["text", "chat"]
    """`text`: continue each prompt; `chat`: answer each prompt as a user's message."""
    prompts: list[str]
    """The prompts, in order."""
    samples: Count
    """Number of generated texts per prompt."""
    max_new_tokens: Count
    """Maximum number of tokens per generated text."""
    temperature: float
    """Divides the logits; 0 always takes the most likely token."""
    top_p: float | None
    """Draw only from the most likely tokens whose total probability reaches top_p; None: from all."""
    seed: int
    """Seed of the random numbers."""

    def __post_init__(self) -> None:
        if not isinstance(self.prompts, list) or not all(isinstance(prompt, str) for prompt in self.prompts):
            raise ValueError(f"task.prompts is {self.prompts!r}: it must be a list of strings.")


TaskConfig = TextConfig | QuestionsConfig | ConversationsConfig | WritingConfig
TASK_KINDS: dict[str, type[TaskConfig]] = {
    "text": TextConfig,
    "questions": QuestionsConfig,
    "conversations": ConversationsConfig,
    "writing": WritingConfig,
}


def read_task(name: str) -> TaskConfig:
    """The config of a task, in conf/task/<name>.yaml or the user's config folder.

    Args:
        name: name of the task.

    Raises:
        ValueError: a setting is unknown, missing or wrong.
    """
    path, content = compose.choice_path("task", name), compose.read_choice("task", name)
    kind = content.get("kind")
    try:
        if kind not in TASK_KINDS:
            raise ValueError(f"kind is {kind!r}: it must be one of {', '.join(TASK_KINDS)}.")
        return parse(TASK_KINDS[kind], content, name="task")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
