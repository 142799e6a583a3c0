"""Texts that are being continued, and the KV cache of what the model has read of them.

A text may outgrow the model's context. When a window of max_seq_len tokens is full and another must be read, the window
begins anew with the last half of it, which is read again from position 0: rows of learned positions were never trained
beyond max_seq_len, and RoPE's were not either. So a new token depends on at least the last max_seq_len / 2 tokens, and
the cache gives what reading the window without a cache would give (`window_start`), up to rounding.
"""

from collections.abc import Container, Sequence
from itertools import groupby

import torch
from torch import Tensor

from gpt_lightning.model import GPT
from gpt_lightning.model.kv_cache import KVCache


def window_start(n_tokens: int, max_seq_len: int) -> int:
    """Where the window begins that is read to continue a text of `n_tokens` tokens."""
    if n_tokens <= max_seq_len:
        return 0
    stride = max_seq_len + 1 - _kept(max_seq_len)
    return -(-(n_tokens - max_seq_len) // stride) * stride


def _kept(max_seq_len: int) -> int:
    """Tokens that a new window begins with, the newest included."""
    return max(1, max_seq_len // 2)


class ContinuedTexts:
    """Reads texts into a cache, which holds all tokens of a window but the newest.

    Args:
        vocab_size: logits of ids from here on are left out.
    """

    def __init__(self, model: GPT, prompts: Sequence[Sequence[int]], max_new_tokens: int, vocab_size: int) -> None:
        self.model = model
        self.vocab_size = vocab_size
        self.texts = [list(prompt) for prompt in prompts]
        self.rows = list(range(len(prompts)))  # the numbers of the texts that the cache holds
        self.device = model.head.weight.device
        self.max_seq_len = model.config.max_seq_len
        longest = max(map(len, self.texts)) + max_new_tokens
        self.cache = model.empty_cache(batch=len(self.texts), room=min(self.max_seq_len, longest))

    def read_prompts(self) -> Tensor:
        """Logits after each prompt, (rows, vocab). Prompts of one length beside each other are read together."""
        logits = []
        begin = 0
        for _, group in groupby(self.texts, key=len):
            texts = list(group)
            cache = self.cache.reopen(slice(begin, begin + len(texts)))
            logits.append(self.read(self.on_device(torch.tensor(texts)), cache))
            begin += len(texts)
        return torch.cat(logits)

    def read(self, token_ids: Tensor, cache: KVCache) -> Tensor:
        """Logits after the last of (rows, time) tokens, (rows, vocab)."""
        return self.model.logits(self.model.hidden(token_ids, cache)[:, -1]).float()[:, : self.vocab_size]

    def full(self) -> list[int]:
        """Where in the cache the full windows are."""
        return [place for place, length in enumerate(self.cache.lengths.tolist()) if length == self.max_seq_len]

    def renew(self, places: list[int], going: Container[int]) -> None:
        """Begin these windows anew, with nothing where a text is not continued."""
        for place in places:
            row = self.rows[place]
            kept = self.texts[row][-_kept(self.max_seq_len) : -1] if row in going else []  # the newest is read next
            cache = self.cache.reopen(slice(place, place + 1))
            if kept:
                self.read(self.on_device(torch.tensor([kept])), cache)

    def keep(self, places: list[int]) -> None:
        """Continue only the texts at these places."""
        self.rows = [self.rows[place] for place in places]
        self.cache.keep(places)

    def on_device(self, tensor: Tensor) -> Tensor:
        """A tensor of the CPU on the model's device."""
        return self.pinned(tensor).to(self.device, non_blocking=self.device.type == "cuda")

    def pinned(self, tensor: Tensor) -> Tensor:
        """A tensor of the CPU, for CUDA in memory that is copied from without waiting."""
        return tensor.pin_memory() if self.device.type == "cuda" else tensor
