"""From the records of a task's file to its questions, as conf/task says it, without code.

A text is a template over the record's fields, as `str.format` reads one: `Question: {question}`, `{choices.text}` for a field
inside a field. `{x!c}` has a capital letter first and small ones after it, `{x!w}` is the last word of x, `{x!b}` what stands
before it.
"""

import re
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from gpt_lightning.evaluation.multiple_choice import Question


class BadQuestionError(ValueError):
    """A record that has the fields of its task, and yet cannot be asked."""


class MissingFieldError(ValueError):
    """A record that has not the fields of its task."""


@dataclass(frozen=True, kw_only=True)
class QuestionTemplate:
    """How a record of a task becomes a question.

    Raises:
        ValueError: there is no such cleaning, or a template cannot be read.
    """

    context: str
    """What stands before the answers, a template."""
    answers: str | Sequence[str]
    """The field that holds the answers; or a template for each."""
    gold: str | int
    """The field that says which answer is right; or its number from 0, where it is the same in all records."""
    labels: str | None = None
    """The field with the answers' labels, one of which `gold` holds; None: `gold` holds the number from 0."""
    clean: str | None = None
    """What is taken from context and answers: `wikihow`, the marks of WikiHow's pages, as lm-evaluation-harness does."""

    @staticmethod
    def of(task: Mapping[str, Any]) -> "QuestionTemplate":
        """That of a conf/task/<name>.yaml.

        Raises:
            KeyError: it lacks a key.
        """
        return QuestionTemplate(**{field.name: task[field.name] for field in fields(QuestionTemplate)})

    def __post_init__(self) -> None:
        if self.clean is not None and self.clean not in _CLEANINGS:
            raise ValueError(f"clean is {self.clean!r}: it must be null or {', '.join(_CLEANINGS)}.")
        for template in [self.context, *([] if isinstance(self.answers, str) else self.answers)]:
            try:
                strange = {c for _, _, _, c in _FORMATTER.parse(template)} - {None, *_CONVERSIONS}
            except ValueError as error:
                raise ValueError(f"the template {template!r} cannot be read: {error}.") from error
            if strange:
                raise ValueError(f"the template {template!r} asks for !{strange.pop()}: there are {_SAID}.")

    def question(self, record: Mapping[str, Any], where: str) -> Question:
        """The question that a record asks.

        Args:
            where: the record stands, for whoever has to mend it.

        Raises:
            MissingFieldError: it has not the fields of the task.
            BadQuestionError: an answer is empty or no text, or which is right is not said.
        """
        clean = _CLEANINGS[self.clean] if self.clean else str
        context, answers = (
            clean(_FORMATTER.vformat(self.context, (), record)),
            [clean(answer) for answer in self._answers(record)],
        )
        for number, answer in enumerate(answers):
            if not answer.strip():
                raise BadQuestionError(f"answer {number} is empty")
        for text in (context, *answers):
            if not text.isascii() and any("\ud800" <= sign <= "\udfff" for sign in text):
                raise BadQuestionError("it holds half a character")  # JSON can spell them, and no encoding of text can
        return Question(context, answers, self._gold(record, len(answers)), where)

    def _answers(self, record: Mapping[str, Any]) -> list[str]:
        if not isinstance(self.answers, str):
            return [_FORMATTER.vformat(template, (), record) for template in self.answers]
        answers = get_field(record, self.answers)
        if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
            raise BadQuestionError(f"{self.answers} holds no list of texts")
        if len(answers) < 2:
            raise BadQuestionError(f"{self.answers} leaves nothing to choose")
        return answers

    def _gold(self, record: Mapping[str, Any], n_answers: int) -> int:
        if isinstance(self.gold, int):
            return self.gold
        said = get_field(record, self.gold)
        if self.labels is not None:
            labels = get_field(record, self.labels)
            if not isinstance(labels, list) or len(labels) != n_answers or labels.count(said) != 1:
                raise BadQuestionError(f"{self.gold} is {said!r}, and the {n_answers} answers are called {labels!r}")
            return labels.index(said)
        is_number = type(said) is int or (isinstance(said, str) and said.isascii() and said.isdigit())
        gold = int(said) if is_number else -1
        if not 0 <= gold < n_answers:
            raise BadQuestionError(f"{self.gold} is {said!r}, and there are {n_answers} answers")
        return gold


def get_field(record: Mapping[str, Any], name: str) -> Any:
    """A field of a record; `a.b` is the field b of its field a.

    Raises:
        MissingFieldError: there is none.
    """
    value: Any = record
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise MissingFieldError(f"there is no field {name}; the fields are {', '.join(map(str, record))}")
        value = value[part]
    return value


class _Formatter(string.Formatter):
    """Looks fields up in a record, and nothing else: no attribute of a value can be reached."""

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, str]:
        value = get_field(kwargs, field_name)
        if not isinstance(value, str):
            raise BadQuestionError(f"{field_name} is {value!r}, and no text")
        return value, field_name

    def convert_field(self, value: Any, conversion: Any) -> Any:
        return value if conversion is None else _CONVERSIONS[conversion](value)


def _without_wikihow(text: str) -> str:
    """Without the marks of titles and steps that HellaSwag took over from WikiHow's pages."""
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


_FORMATTER = _Formatter()
_CLEANINGS: Mapping[str, Callable[[str], str]] = {"wikihow": _without_wikihow}
_CONVERSIONS: Mapping[str, Callable[[str], str]] = {
    "c": str.capitalize,
    "w": lambda text: text.split(" ")[-1],
    "b": lambda text: " ".join(text.split(" ")[:-1]),
}
_SAID = "!c (a capital letter first), !w (the last word), !b (what is before it)"
