"""Which fields of a record hold its document.

{text: …}                                one text
{instruction: …, input: …, output: …}    an instruction as Alpaca writes it: a question and an answer, as chat
{messages: …}                            a conversation: a list of {role, content}
"""

from collections.abc import Mapping
from typing import Any

from data_modules.corpora.documents import BadRecord, Document
from gpt_lightning.tokenizer import Message

_ROLES = ("system", "user", "assistant")


class Fields:
    """Makes documents of records.

    Args:
        names: what a field means to us -> what it is called in the records.

    Raises:
        ValueError: the names are of none of the three kinds.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = dict(names)
        makers = {
            ("text",): self._text_document,
            ("instruction", "input", "output"): self._instruction,
            ("messages",): self._conversation,
        }
        for kind, make in makers.items():
            if set(kind) == set(names):
                self._make = make
                return
        kinds = "; ".join(", ".join(kind) for kind in makers)
        raise ValueError(f"fields names {', '.join(names) or 'nothing'}: it must name one of these: {kinds}.")

    @property
    def columns(self) -> list[str]:
        """The fields that are read."""
        return list(self._names.values())

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
        instruction, given, output = (self._string(row, key) for key in ("instruction", "input", "output"))
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
            if not isinstance(turn, Mapping) or turn.get("role") not in _ROLES:
                raise BadRecord(f"message {number} in '{name}' has no role of {', '.join(_ROLES)}")
            if not isinstance(turn.get("content"), str):
                raise BadRecord(f"message {number} in '{name}' has no content")
            messages.append({"role": turn["role"], "content": _unicode(turn["content"], f"message {number}")})
        if not any(message["role"] == "assistant" for message in messages):
            raise BadRecord(f"in '{name}' the assistant says nothing: there would be nothing to learn")
        return messages

    def _value(self, row: Mapping[str, Any], key: str) -> Any:
        name = self._names[key]
        if name not in row:
            raise BadRecord(
                f"there is no field '{name}'; the record has {', '.join(map(str, row)) or 'none'} (another one: fields.{key}=…)"
            )
        if row[name] is None:
            raise BadRecord(f"the field '{name}' is null")
        return row[name]

    def _string(self, row: Mapping[str, Any], key: str) -> str:
        value = self._value(row, key)
        if not isinstance(value, str):
            raise BadRecord(f"the field '{self._names[key]}' is no text, but a {type(value).__name__}")
        return _unicode(value, f"the field '{self._names[key]}'")


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
