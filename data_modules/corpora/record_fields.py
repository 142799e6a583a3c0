"""Extract a document from the fields of a record.

{text: …}                                a text
{instruction: …, input: …, output: …}    an instruction in Alpaca's format, as chat: question and answer; input may be null
{messages: …}                            a conversation: a list of {role, content}

An assistant message with `weight: 0` bears no loss.
"""

from collections.abc import Mapping
from typing import Any

from data_modules.corpora.corpus import BadRecord, TextOrConversation
from gpt_lightning.tokenizer import Message

_ROLES = ("system", "user", "assistant")


class RecordFields:
    """Convert records to documents.

    Args:
        names: Field in our terms -> name of the field in the records; None: the records do not have this field.
        setting: Setting that names the fields on the command line, for error messages.

    Raises:
        ValueError: The fields form none of the three formats above.
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
        raise ValueError(
            f"{setting} has {', '.join(self._names) or 'no fields'}: it must have one of these sets: {kinds}."
        )

    @property
    def columns(self) -> dict[str, str]:
        """Field to read -> advice on how to name another field."""
        return {name: self._advice(key) for key, name in self._names.items()}

    def document(self, row: Any) -> TextOrConversation | BadRecord:
        """Return the document of a record, or a BadRecord. A row that is a text (from a .txt file) is the document."""
        try:
            if isinstance(row, BadRecord):
                return row
            if isinstance(row, str) and "text" in self._names:
                return _checked(row, "the text")
            if not isinstance(row, Mapping):
                raise BadRecord(
                    f"the record is of type {type(row).__name__}: it must have the fields {', '.join(self.columns)}"
                )
            return self._make(row)
        except BadRecord as error:
            return error

    def _text_document(self, row: Mapping[str, Any]) -> TextOrConversation:
        return _checked(self._string(row, "text"), f"the field '{self._names['text']}'")

    def _instruction(self, row: Mapping[str, Any]) -> TextOrConversation:
        instruction, output = self._string(row, "instruction"), self._string(row, "output")
        given = self._string(row, "input") if "input" in self._names else ""
        return [
            {"role": "user", "content": f"{instruction}\n\n{given}" if given else instruction},
            {"role": "assistant", "content": output},
        ]

    def _conversation(self, row: Mapping[str, Any]) -> TextOrConversation:
        name = self._names["messages"]
        turns = self._value(row, "messages")
        if not isinstance(turns, list):
            raise BadRecord(f"the field '{name}' is of type {type(turns).__name__}: it must be a list of messages")
        messages: list[Message] = []
        for number, turn in enumerate(turns, start=1):
            if isinstance(turn, BadRecord):
                raise turn
            if not isinstance(turn, Mapping) or turn.get("role") not in _ROLES:
                raise BadRecord(
                    f"message {number} in '{name}' lacks a valid role: it must be one of {', '.join(_ROLES)}"
                )
            if not isinstance(turn.get("content"), str):
                raise BadRecord(f"message {number} in '{name}' lacks a content: it must be a string")
            messages.append({"role": turn["role"], "content": _unicode(turn["content"], f"message {number}")})
            if turn["role"] == "assistant" and not _bears_loss(turn.get("weight"), f"message {number} in '{name}'"):
                messages[-1]["weight"] = 0
        answers = [message for message in messages if message["role"] == "assistant"]
        if not any(message.get("weight", 1) for message in answers):
            what = "only messages of weight 0" if answers else "no messages"
            raise BadRecord(f"the assistant has {what} in '{name}': at least one must bear loss")
        return messages

    def _advice(self, key: str) -> str:
        none = f"; if no record has it: {self._setting}.{key}=null" if key == "input" else ""
        return f"to read another field: {self._setting}.{key}=…{none}"

    def _value(self, row: Mapping[str, Any], key: str) -> Any:
        name = self._names[key]
        if name not in row:
            raise BadRecord(
                f"the field '{name}' is missing; the record has {', '.join(map(str, row)) or 'none'} "
                f"({self._advice(key)})"
            )
        if isinstance(row[name], BadRecord):
            raise row[name]
        if row[name] is None:
            raise BadRecord(f"the field '{name}' is null: it must have a value")
        return row[name]

    def _string(self, row: Mapping[str, Any], key: str) -> str:
        value = self._value(row, key)
        if not isinstance(value, str):
            raise BadRecord(f"the field '{self._names[key]}' is of type {type(value).__name__}: it must be a string")
        return _unicode(value, f"the field '{self._names[key]}'")


def check_document(value: Any) -> TextOrConversation | BadRecord:
    """Return a text or a conversation unchanged, or a BadRecord if the value is neither."""
    if isinstance(value, list):
        return RecordFields({"messages": "messages"}).document({"messages": value})
    if isinstance(value, str):
        return RecordFields({"text": "text"}).document(value)
    return BadRecord(f"the document is of type {type(value).__name__}: it must be a text or a list of messages")


def _bears_loss(weight: Any, where: str) -> bool:
    """Return whether an assistant message bears loss; `weight` is as in OpenAI's files, None if absent."""
    if weight is not None and weight not in (0, 1):
        raise BadRecord(f"{where} has the weight {weight!r}: it must be 0 or 1")
    return weight is None or bool(weight)


def _checked(text: str, what: str) -> str:
    if not text:
        raise BadRecord(f"{what} is empty: it must have at least one character")
    return _unicode(text, what)


def _unicode(text: str, what: str) -> str:
    """Check that a text can be encoded. JSON allows lone surrogates; invalid UTF-8 bytes were decoded to some."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        sign = text[error.start]
        if "\udc80" <= sign <= "\udcff":
            raise BadRecord(f"{what} is not UTF-8: it contains the byte {ord(sign) - 0xDC00:#04x}") from error
        raise BadRecord(f"{what} contains half a surrogate pair, {sign!a}") from error
    return text
