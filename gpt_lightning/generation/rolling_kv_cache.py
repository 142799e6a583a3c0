"""The texts being continued, and the KV cache of the tokens that the model has read.

A text may grow beyond the model's context. When a window of max_seq_len tokens is full, a new window starts with the
last half of the old one, which is read again from position 0, because no positions beyond max_seq_len were trained. So
each new token depends on at least the last max_seq_len / 2 tokens, and the result equals, up to rounding, that of
reading the window (`window_start`) without a cache.
"""

from collections.abc import Container, Sequence
from itertools import groupby

import torch
from torch import Tensor

from gpt_lightning.model import GPT
from gpt_lightning.model.kv_cache import KVCache


def window_start(n_tokens: int, max_seq_len: int) -> int:
    """Return the index of the first token of the window that is read to continue a text of `n_tokens` tokens."""
    if n_tokens <= max_seq_len:
        return 0
    stride = max_seq_len + 1 - _kept(max_seq_len)
    return -(-(n_tokens - max_seq_len) // stride) * stride


def _kept(max_seq_len: int) -> int:
    """Return the number of tokens that a new window starts with, including the newest."""
    return max(1, max_seq_len // 2)


class RollingKVCache:
    """Read texts into a KV cache that holds all tokens of the current window except the newest.

    Args:
        model: The model.
        prompts: Token ids of each prompt.
        max_new_tokens: Maximum number of new tokens per text, which bounds the size of the cache.
        vocab_size: Logits of ids from vocab_size on are dropped.
    """

    def __init__(self, model: GPT, prompts: Sequence[Sequence[int]], max_new_tokens: int, vocab_size: int) -> None:
        self.model = model
        self.vocab_size = vocab_size
        self.texts = [list(prompt) for prompt in prompts]
        self.rows = list(range(len(prompts)))  # indices of the texts in the cache
        self.device = model.head.weight.device
        self.max_seq_len = model.config.max_seq_len
        longest = max(map(len, self.texts)) + max_new_tokens
        self.cache = model.empty_cache(batch=len(self.texts), room=min(self.max_seq_len, longest))

    def read_prompts(self) -> Tensor:
        """Return the logits after each prompt, (rows, vocab). Adjacent prompts of equal length are read together."""
        logits = []
        begin = 0
        for _, group in groupby(self.texts, key=len):
            texts = list(group)
            cache = self.cache.reopen(slice(begin, begin + len(texts)))
            logits.append(self.read(self.on_device(torch.tensor(texts)), cache))
            begin += len(texts)
        return torch.cat(logits)

    def read(self, token_ids: Tensor, cache: KVCache) -> Tensor:
        """Read (rows, time) tokens and return the logits after the last one, (rows, vocab)."""
        return self.model.logits(self.model.hidden(token_ids, cache)[:, -1]).float()[:, : self.vocab_size]

    def full(self) -> list[int]:
        """Return the places in the cache whose windows are full."""
        return [place for place, length in enumerate(self.cache.lengths.tolist()) if length == self.max_seq_len]

    def renew(self, places: list[int], going: Container[int]) -> None:
        """Start new windows at these places. Windows of texts that are not in `going` stay empty."""
        for place in places:
            row = self.rows[place]
            kept = (
                self.texts[row][-_kept(self.max_seq_len) : -1] if row in going else []
            )  # the newest token is read next
            cache = self.cache.reopen(slice(place, place + 1))
            if kept:
                self.read(self.on_device(torch.tensor([kept])), cache)

    def keep(self, places: list[int]) -> None:
        """Keep only the texts at these indices."""
        self.rows = [self.rows[place] for place in places]
        self.cache.keep(places)

    def on_device(self, tensor: Tensor) -> Tensor:
        """Copy a CPU tensor to the model's device."""
        return self.pinned(tensor).to(self.device, non_blocking=self.device.type == "cuda")

    def pinned(self, tensor: Tensor) -> Tensor:
        """Return a CPU tensor, for CUDA in pinned memory, so that it can be copied asynchronously."""
        return tensor.pin_memory() if self.device.type == "cuda" else tensor
