"""Convert the records of a task's data file to questions, as configured in conf/task.

A template is a `str.format` string over the fields of a record: `Question: {question}`, or `{choices.text}` for a
nested field. Conversions: `{x!c}` is x with a capital first letter and the rest in lower case, `{x!w}` is the last word
of x, `{x!b}` is everything before the last word.
"""

import re
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpt_lightning.evaluation.multiple_choice import Question


class BadQuestionError(ValueError):
    """A record that has the fields of its task but does not form a valid question."""


class MissingFieldError(ValueError):
    """A record that lacks a field of its task."""


@dataclass(frozen=True, kw_only=True)
class QuestionTemplate:
    """How to convert a record of a task to a question.

    Raises:
        ValueError: `clean` is unknown, or a template is malformed or not a string.
    """

    context: str
    """Template of the text before the answers."""
    answers: str | Sequence[str]
    """Name of the field that holds the list of answers, or one template per answer."""
    gold: str | int
    """Name of the field that states the correct answer; or, if it is the same answer in all records, its index from 0."""
    labels: str | None = None
    """Name of the field with the labels of the answers. The field `gold` then contains the label of the correct answer.
    None: `gold` is an index from 0.
    """
    clean: str | None = None
    """How to clean context and answers. `wikihow` removes WikiHow's markup, as lm-evaluation-harness does."""

    def __post_init__(self) -> None:
        if self.clean is not None and self.clean not in _CLEANINGS:
            raise ValueError(f"clean is {self.clean!r}: it must be null or {', '.join(_CLEANINGS)}.")
        if not (isinstance(self.answers, Sequence) and all(isinstance(text, str) for text in self.answers)):
            raise ValueError(f"answers is {self.answers!r}: it must be the name of a field, or a list of templates.")
        for template in [self.context, *([] if isinstance(self.answers, str) else self.answers)]:
            try:
                strange = {c for _, _, _, c in _FORMATTER.parse(template)} - {None, *_CONVERSIONS}
            except ValueError as error:
                raise ValueError(f"the template {template!r} is malformed: {error}.") from error
            if strange:
                raise ValueError(f"the template {template!r} has the conversion !{strange.pop()}: it must be {_SAID}.")

    def question(self, record: Mapping[str, Any], where: str) -> Question:
        """Convert a record to a question.

        Args:
            record: Field name -> value.
            where: Location of the record, for error messages.

        Raises:
            MissingFieldError: The record lacks a field of the task.
            BadQuestionError: An answer is empty or not a string, or the correct answer is not stated.
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
                raise BadQuestionError("it contains half a surrogate pair")  # valid in JSON, but in no text encoding
        return Question(context, answers, self._gold(record, len(answers)), where)

    def _answers(self, record: Mapping[str, Any]) -> list[str]:
        if not isinstance(self.answers, str):
            return [_FORMATTER.vformat(template, (), record) for template in self.answers]
        answers = get_field(record, self.answers)
        if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
            raise BadQuestionError(f"{self.answers} is not a list of strings")
        if len(answers) < 2:
            raise BadQuestionError(f"{self.answers} has fewer than two answers")
        return answers

    def _gold(self, record: Mapping[str, Any], n_answers: int) -> int:
        if isinstance(self.gold, int):
            return self.gold
        said = get_field(record, self.gold)
        if self.labels is not None:
            labels = get_field(record, self.labels)
            if not isinstance(labels, list) or len(labels) != n_answers or labels.count(said) != 1:
                raise BadQuestionError(
                    f"{self.gold} is {said!r}, but the {n_answers} answers have the labels {labels!r}"
                )
            return labels.index(said)
        is_number = type(said) is int or (isinstance(said, str) and said.isascii() and said.isdigit())
        gold = int(said) if is_number else -1
        if not 0 <= gold < n_answers:
            raise BadQuestionError(f"{self.gold} is {said!r}, but there are {n_answers} answers, counted from 0")
        return gold


def get_field(record: Mapping[str, Any], name: str) -> Any:
    """Return a field of a record; `a.b` is the field b inside the field a.

    Raises:
        MissingFieldError: The field is missing.
    """
    value: Any = record
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise MissingFieldError(f"the field {name} is missing; the record has {', '.join(map(str, record))}")
        value = value[part]
    return value


class _Formatter(string.Formatter):
    """Look up fields in a record only; attributes of values are not accessible."""

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, str]:
        value = get_field(kwargs, field_name)
        if not isinstance(value, str):
            raise BadQuestionError(f"{field_name} is {value!r}, not a string")
        return value, field_name

    def convert_field(self, value: Any, conversion: Any) -> Any:
        return value if conversion is None else _CONVERSIONS[conversion](value)


def _without_wikihow(text: str) -> str:
    """Remove the markup of titles and steps that HellaSwag took from WikiHow pages."""
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


_FORMATTER = _Formatter()
_CLEANINGS: Mapping[str, Callable[[str], str]] = {"wikihow": _without_wikihow}
_CONVERSIONS: Mapping[str, Callable[[str], str]] = {
    "c": str.capitalize,
    "w": lambda text: text.split(" ")[-1],
    "b": lambda text: " ".join(text.split(" ")[:-1]),
}
_SAID = "!c (capital first letter), !w (last word) or !b (all before the last word)"
