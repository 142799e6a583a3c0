"""Which fields of a record hold its document.

{text: …}                                one text
{instruction: …, input: …, output: …}    an instruction as Alpaca writes it: a question and an answer, as chat; input may be null
{messages: …}                            a conversation: a list of {role, content}; an assistant's `weight: 0` takes its loss away
"""

from collections.abc import Mapping
from typing import Any

from data_modules.corpora.corpus import BadRecord, Document
from gpt_lightning.tokenizer import Message

_ROLES = ("system", "user", "assistant")


class RecordFields:
    """Makes documents of records.

    Args:
        names: what a field means to us -> what it is called in the records; None: they have none.
        setting: what names them on the command line, for advice.

    Raises:
        ValueError: the names are of none of the three kinds.
    """

    def __init__(self, names: Mapping[str, str | None], *, setting: str = "fields") -> None:
        self._names = {key: name for key, name in names.items() if name is not None}
        self._setting = setting
        makers = {
            ("text",): self._text_document,
            ("instruction", "input", "output"): self._instruction,
            ("instruction", "output"): self._instruction,
            ("messages",): self._conversation,
        }
        for kind, make in makers.items():
            if set(kind) == set(self._names):
                self._make = make
                return
        kinds = "; ".join(", ".join(kind) for kind in makers)
        raise ValueError(f"{setting} names {', '.join(self._names) or 'nothing'}: it must name one of these: {kinds}.")

    @property
    def columns(self) -> dict[str, str]:
        """The fields that are read -> how another one is named instead."""
        return {name: self._advice(key) for key, name in self._names.items()}

    def document(self, row: Any) -> Document | BadRecord:
        """The document of a record, or what is wrong with it; a text that a file holds by itself is its own document."""
        try:
            if isinstance(row, BadRecord):
                return row
            if isinstance(row, str) and "text" in self._names:
                return _checked(row, "the text")
            if not isinstance(row, Mapping):
                raise BadRecord(f"is no record with the fields {', '.join(self.columns)}, but a {type(row).__name__}")
            return self._make(row)
        except BadRecord as error:
            return error

    def _text_document(self, row: Mapping[str, Any]) -> Document:
        return _checked(self._string(row, "text"), f"the field '{self._names['text']}'")

    def _instruction(self, row: Mapping[str, Any]) -> Document:
        instruction, output = self._string(row, "instruction"), self._string(row, "output")
        given = self._string(row, "input") if "input" in self._names else ""
        return [
            {"role": "user", "content": f"{instruction}\n\n{given}" if given else instruction},
            {"role": "assistant", "content": output},
        ]

    def _conversation(self, row: Mapping[str, Any]) -> Document:
        name = self._names["messages"]
        turns = self._value(row, "messages")
        if not isinstance(turns, list):
            raise BadRecord(f"the field '{name}' is no list of messages, but a {type(turns).__name__}")
        messages: list[Message] = []
        for number, turn in enumerate(turns, start=1):
            if isinstance(turn, BadRecord):
                raise turn
            if not isinstance(turn, Mapping) or turn.get("role") not in _ROLES:
                raise BadRecord(f"message {number} in '{name}' has no role of {', '.join(_ROLES)}")
            if not isinstance(turn.get("content"), str):
                raise BadRecord(f"message {number} in '{name}' has no content")
            messages.append({"role": turn["role"], "content": _unicode(turn["content"], f"message {number}")})
            if turn["role"] == "assistant" and not _bears_loss(turn.get("weight"), f"message {number} in '{name}'"):
                messages[-1]["weight"] = 0
        answers = [message for message in messages if message["role"] == "assistant"]
        if not any(message.get("weight", 1) for message in answers):
            what = "has weight 0 everywhere" if answers else "says nothing"
            raise BadRecord(f"in '{name}' the assistant {what}: there would be nothing to learn")
        return messages

    def _advice(self, key: str) -> str:
        none = f"; none in any record: {self._setting}.{key}=null" if key == "input" else ""
        return f"another one: {self._setting}.{key}=…{none}"

    def _value(self, row: Mapping[str, Any], key: str) -> Any:
        name = self._names[key]
        if name not in row:
            raise BadRecord(
                f"there is no field '{name}'; the record has {', '.join(map(str, row)) or 'none'} ({self._advice(key)})"
            )
        if isinstance(row[name], BadRecord):
            raise row[name]
        if row[name] is None:
            raise BadRecord(f"the field '{name}' is null")
        return row[name]

    def _string(self, row: Mapping[str, Any], key: str) -> str:
        value = self._value(row, key)
        if not isinstance(value, str):
            raise BadRecord(f"the field '{self._names[key]}' is no text, but a {type(value).__name__}")
        return _unicode(value, f"the field '{self._names[key]}'")


def check_document(value: Any) -> Document | BadRecord:
    """A text or a conversation as it is, or what is wrong with it."""
    if isinstance(value, list):
        return RecordFields({"messages": "messages"}).document({"messages": value})
    if isinstance(value, str):
        return RecordFields({"text": "text"}).document(value)
    return BadRecord(f"is no text and no list of messages, but a {type(value).__name__}")


def _bears_loss(weight: Any, where: str) -> bool:
    """What the weight of an assistant's message says, as OpenAI's files have it; None: nothing."""
    if weight is not None and weight not in (0, 1):
        raise BadRecord(f"{where} has the weight {weight!r}: it must be 0 or 1")
    return weight is None or bool(weight)


def _checked(text: str, what: str) -> str:
    if not text:
        raise BadRecord(f"{what} is empty")
    return _unicode(text, what)


def _unicode(text: str, what: str) -> str:
    """JSON can spell halves of characters, which no encoding of text can; bytes that are no UTF-8 are read as some of them."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        sign = text[error.start]
        if "\udc80" <= sign <= "\udcff":
            raise BadRecord(f"{what} is not UTF-8: it holds the byte {ord(sign) - 0xDC00:#04x}") from error
        raise BadRecord(f"{what} holds half a character, {sign!a}") from error
    return text
