"""What every tokenizer can do, and ChatML written once for all of them."""

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
    """Of an assistant's turn: 0 takes its loss away; without it, it bears loss."""


class Tokenizer(ABC):
    """Ids are 0 .. vocab_size - 1; special ids come from `special_ids` alone, never from text."""

    name: str
    """Names the folder of the shards made with it: `data/<name>/`."""
    vocab_size: int
    """Ids that exist. A model's own vocabulary may be padded beyond it; the padding is never sampled."""
    fingerprint: str
    """sha256 over everything that decides an encoding; equal fingerprints mean equal ids for every text."""
    special_ids: dict[str, int]

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Ids of ordinary text. A text that spells a special token is encoded as the characters it is."""

    @abstractmethod
    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """`encode` of each text, as a (n,) uint32 array."""

    @abstractmethod
    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """The bytes of `ids`, special tokens spelled out; they may begin or end inside a UTF-8 character."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens spelled out; bytes that are no UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    @abstractmethod
    def bytes_per_id(self) -> list[int]:
        """How many UTF-8 bytes of text each id spells, by id; a special token spells none."""

    @abstractmethod
    def to_hf_json(self) -> str:
        """The text of a `tokenizer.json`, with which Hugging Face's libraries and `load_tokenizer` give the same ids."""

    def extends(self, other: "Tokenizer") -> bool:
        """Whether every id of the other's spells the same here."""
        return other.vocab_size <= self.vocab_size and all(
            self.decode_bytes([token_id]) == other.decode_bytes([token_id]) for token_id in range(other.vocab_size)
        )

    @property
    def eot_id(self) -> int:
        """The id that ends a document."""
        return self.special_ids[END_OF_TEXT]

    def encode_chat(self, messages: Sequence[Message]) -> tuple[list[int], list[int]]:
        """ChatML ids of a conversation, and its loss mask: 1 where the id is what the model shall learn to say.

        Each turn is `<|im_start|>role\\ncontent<|im_end|>\\n`. An assistant's content and its `<|im_end|>` bear loss,
        unless its weight is 0; the roles, the line breaks between turns and everything said by others do not.

        Raises:
            ValueError: the tokenizer has no ChatML tokens, or a message lacks its role or content.
        """
        if CHAT_START not in self.special_ids:
            raise ValueError(f"tokenizer '{self.name}' has no chat tokens: use gpt2_chatml or a BPE trained here.")
        ids: list[int] = []
        mask: list[int] = []
        for number, message in enumerate(messages):
            if not message.get("role") or not isinstance(message.get("content"), str):
                raise ValueError(f"message {number} of a conversation needs a role and a content, not {message!r}.")
            start = [self.special_ids[CHAT_START], *self.encode(message["role"] + "\n")]
            said = [*self.encode(message["content"]), self.special_ids[CHAT_END]]
            end = self.encode("\n")
            ids += start + said + end
            bears_loss = int(message["role"] == "assistant" and message.get("weight", 1) != 0)
            mask += [0] * len(start) + [bears_loss] * len(said) + [0] * len(end)
        return ids, mask

    def encode_chat_prompt(self, messages: Sequence[Message]) -> list[int]:
        """ChatML ids of a conversation so far, and the beginning of the assistant's next turn."""
        return [*self.encode_chat(messages)[0], self.special_ids[CHAT_START], *self.encode("assistant\n")]
