"""A byte-level BPE in a `tokenizer.json` of Hugging Face's `tokenizers`, trained here or exported by another project."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from gpt_lightning.tokenizer.base import CHAT_END, CHAT_START, END_OF_TEXT, Tokenizer
from gpt_lightning.tokenizer.byte_alphabet import printable_to_bytes
from gpt_lightning.tokenizer.byte_level_check import HARD_TEXTS, why_not_byte_level_bpe

_SPECIAL_TOKENS = [END_OF_TEXT, CHAT_START, CHAT_END]


class TrainedBPE(Tokenizer):
    """A tokenizer from a `tokenizer.json`, named after the file's folder. Truncation and padding in the file are
    ignored.

    Raises:
        ValueError: The file is not a byte-level BPE, or lacks the end-of-text token.
    """

    def __init__(self, path: Path) -> None:
        try:
            content = path.read_text(encoding="utf-8")
            self._tokenizer = tokenizers.Tokenizer.from_str(content)
        except OSError:
            raise
        except Exception as error:  # the library raises a bare Exception
            raise ValueError(f"{path} is not a tokenizer.json: {error}.") from error
        if self._tokenizer.truncation or self._tokenizer.padding:
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            content = self._tokenizer.to_str()
        if reason := why_not_byte_level_bpe(self._tokenizer):
            raise ValueError(_refusal(path, reason))
        self._tokenizer.encode_special_tokens = True  # a special token spelled in a text is encoded as ordinary text
        self.name = path.resolve().parent.name
        self.vocab_size = self._tokenizer.get_vocab_size()
        self.special_ids = {}
        for token in _SPECIAL_TOKENS:
            token_id = self._tokenizer.token_to_id(token)
            if token_id is not None:
                self.special_ids[token] = token_id
        if END_OF_TEXT not in self.special_ids:
            raise ValueError(
                f"{path} lacks the token {END_OF_TEXT}: it must have this token, which separates documents."
            )
        try:
            self._bytes_of = self._read_bytes()
        except KeyError as error:
            raise ValueError(_refusal(path, f"it contains {error}, which represents no byte")) from error
        if reason := self._lost_text():
            raise ValueError(_refusal(path, reason))
        self._path = path
        self._content = content
        self.fingerprint = hashlib.sha256(content.encode()).hexdigest()

    def __reduce__(self) -> tuple[Any, ...]:
        return TrainedBPE, (self._path,)  # the library's own pickle loses encode_special_tokens

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.uint32) for encoding in encodings]

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        return b"".join(self._bytes_of[i] for i in ids)

    def bytes_per_id(self) -> list[int]:
        special = set(self.special_ids.values())
        return [0 if i in special else len(token) for i, token in enumerate(self._bytes_of)]

    def to_hf_json(self) -> str:
        if not self._tokenizer.num_special_tokens_to_add(is_pair=False):
            return self._content
        plain = tokenizers.Tokenizer.from_str(self._content)
        plain.post_processor = None  # it would add special tokens around a text
        return plain.to_str()

    def _read_bytes(self) -> list[bytes]:
        """Return the bytes of each id; a special token represents its own text."""
        special = {i: token.content for i, token in self._tokenizer.get_added_tokens_decoder().items()}
        written = {i: token for token, i in self._tokenizer.get_vocab().items()}
        return [special[i].encode() if i in special else printable_to_bytes(written[i]) for i in range(self.vocab_size)]

    def _lost_text(self) -> str | None:
        """Return a message if a difficult text does not decode to itself or becomes a special token; otherwise None."""
        added = [token.content for token in self._tokenizer.get_added_tokens_decoder().values()]
        for text in (*HARD_TEXTS, *self.special_ids, " a ".join(["", *added, ""])):
            ids = self.encode(text)
            if (back := self.decode(ids)) != text:
                return f"the text {text[:40]!r} decodes to {back[:40]!r}"
            for token, token_id in self.special_ids.items():
                if token_id in ids:
                    return f"the text {token!r} becomes a special token (it must be an added token with special: true)"
        return None


def _refusal(path: Path, reason: str) -> str:
    return (
        f"{path} is not a lossless byte-level BPE: {reason}. Use tokenizer=gpt2, or a tokenizer that prepare.py "
        "trains, such as tokenizer=bpe_4096."
    )


def train_bpe(texts: Iterable[str], *, vocab_size: int, path: Path) -> TrainedBPE:
    """Train a byte-level BPE and write it to a file, completely or not at all.

    The same texts in the same order give the same file.

    Args:
        texts: Training texts.
        vocab_size: Number of ids, including special tokens.
        path: The `tokenizer.json` to write; its folder's name is the tokenizer's name.

    Raises:
        ValueError: There is too little text to fill the vocabulary.
    """
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=_SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != vocab_size:
        raise ValueError(
            f"{path.parent.name} has {tokenizer.get_vocab_size()} ids after training: it must have {vocab_size}. "
            "Train on more text, or lower tokenizer.model_vocab_size."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    tokenizer.save(str(temporary), pretty=False)
    temporary.replace(path)
    return TrainedBPE(path)
