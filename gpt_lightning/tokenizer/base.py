"""The interface of all tokenizers, including ChatML."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NotRequired, TypedDict

import numpy as np

END_OF_TEXT = "<|endoftext|>"
CHAT_START = "<|im_start|>"
CHAT_END = "<|im_end|>"


class Message(TypedDict):
    """One turn of a conversation."""

    role: str  # "system", "user" or "assistant"
    content: str
    weight: NotRequired[int]
    """0 excludes an assistant's message from the loss. By default the message bears loss."""


class Tokenizer(ABC):
    """Convert text to ids from 0 to vocab_size - 1. Special ids come only from `special_ids`, never from text."""

    name: str
    """Name of the tokenizer, and of the folder for its shards: `data/<name>/`."""
    vocab_size: int
    """Number of ids. A model's vocabulary may be padded to a larger size; padding ids are never sampled."""
    fingerprint: str
    """sha256 of everything that determines an encoding; equal fingerprints mean equal ids for every text."""
    special_ids: dict[str, int]

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Encode ordinary text. Text that spells a special token is encoded as ordinary characters."""

    @abstractmethod
    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Encode each text, as a (n,) uint32 array."""

    @abstractmethod
    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """Return the bytes of ids, with special tokens spelled out. The bytes may start or end inside a UTF-8
        character.
        """

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, with special tokens spelled out. Bytes that are not valid UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    @abstractmethod
    def bytes_per_id(self) -> list[int]:
        """Return the number of UTF-8 bytes of each id, as a list of length vocab_size; 0 for special tokens."""

    @abstractmethod
    def to_hf_json(self) -> str:
        """Return a `tokenizer.json` with which Hugging Face's libraries and `load_tokenizer` give the same ids."""

    def extends(self, other: "Tokenizer") -> bool:
        """Return whether every id of the other tokenizer decodes to the same bytes here."""
        return other.vocab_size <= self.vocab_size and all(
            self.decode_bytes([token_id]) == other.decode_bytes([token_id]) for token_id in range(other.vocab_size)
        )

    @property
    def eot_id(self) -> int:
        """The end-of-text id, which separates documents."""
        return self.special_ids[END_OF_TEXT]

    def encode_chat(self, messages: Sequence[Message]) -> tuple[list[int], list[int]]:
        """Encode a conversation in ChatML.

        Each message is `<|im_start|>role\\ncontent<|im_end|>\\n`. An assistant's content and its `<|im_end|>` bear
        loss, unless its weight is 0. Roles, line breaks between messages, and other messages bear no loss.

        Args:
            messages: The conversation.

        Returns:
            (ids, loss mask): two lists of equal length; the mask is 1 for ids that bear loss, otherwise 0.

        Raises:
            ValueError: The tokenizer has no ChatML tokens, or a message lacks its role or content.
        """
        if CHAT_START not in self.special_ids:
            raise ValueError(
                f"tokenizer '{self.name}' has no chat tokens: use gpt2_chatml, or a BPE that prepare.py trains."
            )
        ids: list[int] = []
        mask: list[int] = []
        for number, message in enumerate(messages):
            if not message.get("role") or not isinstance(message.get("content"), str):
                raise ValueError(
                    f"message {number} of a conversation is {message!r}: it must have a role and a content."
                )
            start = [self.special_ids[CHAT_START], *self.encode(message["role"] + "\n")]
            said = [*self.encode(message["content"]), self.special_ids[CHAT_END]]
            end = self.encode("\n")
            ids += start + said + end
            bears_loss = int(message["role"] == "assistant" and message.get("weight", 1) != 0)
            mask += [0] * len(start) + [bears_loss] * len(said) + [0] * len(end)
        return ids, mask

    def encode_chat_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Encode a conversation so far in ChatML, followed by the start of the assistant's next message."""
        return [*self.encode_chat(messages)[0], self.special_ids[CHAT_START], *self.encode("assistant\n")]
