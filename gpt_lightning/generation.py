"""Text from a model: the prompts are read once into a KV cache, then each new token costs one short forward pass.

A text may outgrow the model's context. When a window of max_seq_len tokens is full and another must be read, the window
begins anew with the last half of it, which is read again from position 0: rows of learned positions were never trained
beyond max_seq_len, and RoPE's were not either. So a new token depends on at least the last max_seq_len / 2 tokens, and
the cache gives what reading the window without a cache would give (`window_start`), up to rounding.
"""

import codecs
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from gpt_lightning.model import GPT
from gpt_lightning.model.evaluating import evaluating
from gpt_lightning.model.kv_cache import KVCache
from gpt_lightning.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a token is drawn from logits.

    Raises:
        ValueError: a value is out of its range.
    """

    temperature: float = 1.0
    """0 takes the likeliest id each time."""
    top_k: int | None = None
    """Only the k likeliest ids are drawn from; None: all."""
    top_p: float | None = None
    """Only the likeliest ids that together reach this probability are drawn from (arXiv:1904.09751); None: all."""
    repetition_penalty: float = 1.0
    """Logits of ids that the text holds already are divided by it where positive, else multiplied (arXiv:1909.05858)."""
    seed: int = 0
    """Each prompt draws from (seed, its number): its answer does not depend on the prompts beside it, in fp32; half precision
    rounds a batch's products otherwise than a row's."""

    def __post_init__(self) -> None:
        for name in ("temperature", "top_p", "repetition_penalty"):
            value = getattr(self, name)
            if not (isinstance(value, int | float) or (name == "top_p" and value is None)):
                raise ValueError(f"{name} is {value!r}: it must be a number.")
        if not self.temperature >= 0:
            raise ValueError(f"temperature is {self.temperature}: it must be 0 or more.")
        if self.top_k is not None and (type(self.top_k) is not int or self.top_k < 1):
            raise ValueError(f"top_k is {self.top_k}: it must be a whole number, 1 or more, or null for all.")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}: it must be above 0 and at most 1, or null for all.")
        if not self.repetition_penalty > 0:
            raise ValueError(f"repetition_penalty is {self.repetition_penalty}: it must be above 0; 1 means none.")


def generate(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    *,
    sampling: Sampling | None = None,
    stop_ids: Sequence[int] = (),
    vocab_size: int | None = None,
) -> list[list[int]]:
    """The ids that follow each prompt, without the prompt, ended before the first stop id.

    The global random state is left alone, and the same call gives the same ids on the same device.

    Args:
        prompts: ids, one to max_seq_len per prompt, of any lengths side by side.
        sampling: None: temperature 1 over all ids.
        vocab_size: ids from here on are the vocabulary's padding and never drawn; None: the model has none.

    Raises:
        ValueError: a prompt is empty, longer than the model's context, or holds an id that the model does not have.
    """
    _refuse_prompts(model, prompts, max_new_tokens)
    answers: list[list[int]] = [[] for _ in prompts]
    for row, token_id in _generated(model, prompts, max_new_tokens, sampling or Sampling(), stop_ids, vocab_size):
        answers[row].append(token_id)
    return answers


def stream(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: Sequence[int],
    max_new_tokens: int,
    *,
    sampling: Sampling | None = None,
    stop_ids: Sequence[int] = (),
) -> Iterator[str]:
    """The text that follows `prompt`, piece by piece as it arises; together the pieces are the decoded answer of `generate`.

    A character of several bytes comes whole, with the token that completes it. Raises as `generate`.
    """
    _refuse_prompts(model, [prompt], max_new_tokens)  # now, not when the first piece is asked for
    tokens = _generated(model, [prompt], max_new_tokens, sampling or Sampling(), stop_ids, tokenizer.vocab_size)
    return _pieces(tokenizer, (token_id for _, token_id in tokens))


def _pieces(tokenizer: Tokenizer, ids: Iterable[int]) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for token_id in ids:
        if piece := decoder.decode(tokenizer.decode_bytes([token_id])):
            yield piece
    if rest := decoder.decode(b"", final=True):
        yield rest


def window_start(n_tokens: int, max_seq_len: int) -> int:
    """Where the window begins that is read to continue a text of `n_tokens` tokens."""
    if n_tokens <= max_seq_len:
        return 0
    stride = max_seq_len + 1 - _kept(max_seq_len)
    return -(-(n_tokens - max_seq_len) // stride) * stride


def _kept(max_seq_len: int) -> int:
    """Tokens that a new window begins with, the newest included."""
    return max(1, max_seq_len // 2)


class _Decoding:
    """Texts that are being continued, and the cache of what the model has read of them."""

    def __init__(self, model: GPT, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
        self.model = model
        self.texts = [list(prompt) for prompt in prompts]
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
            logits.append(self._read(texts, self.cache.reopen(slice(begin, begin + len(texts)))))
            begin += len(texts)
        return torch.cat(logits)

    def read_newest(self) -> Tensor:
        """Logits after the newest token of each text, (rows, vocab)."""
        full = [row for row, length in enumerate(self.cache.lengths.tolist()) if length == self.max_seq_len]
        for row in full:  # all but its newest token, which is read below with those of the others
            kept = self.texts[row][-_kept(self.max_seq_len) : -1]
            cache = self.cache.reopen(slice(row, row + 1))
            if kept:
                self._read([kept], cache)
        return self._read([text[-1:] for text in self.texts], self.cache)

    def keep(self, rows: list[int]) -> None:
        """Go on with these texts alone."""
        self.texts = [self.texts[row] for row in rows]
        self.cache.keep(rows)

    def _read(self, texts: list[list[int]], cache: KVCache) -> Tensor:
        x = self.model.hidden(torch.tensor(texts, device=self.device), cache)
        return self.model.logits(x[:, -1]).float()


class _Drawing:
    """Draws one id per text, each from random numbers of its own."""

    def __init__(
        self, sampling: Sampling, texts: Sequence[Sequence[int]], vocab_size: int, device: torch.device
    ) -> None:
        self.sampling = sampling
        self.randoms = [random.Random(f"{sampling.seed}/{row}") for row in range(len(texts))]
        self.seen: Tensor | None = None  # (rows, vocab) bool, the ids that a text holds
        if sampling.repetition_penalty != 1:
            self.seen = torch.zeros(len(texts), vocab_size, dtype=torch.bool, device=device)
            for row, text in enumerate(texts):
                self.seen[row, [i for i in text if i < vocab_size]] = True

    def draw(self, logits: Tensor) -> list[int]:
        """An id for each row of logits, (rows, vocab)."""
        sampling = self.sampling
        if self.seen is not None:
            penalty = sampling.repetition_penalty
            penalised = torch.where(logits > 0, logits / penalty, logits * penalty)
            logits = torch.where(self.seen, penalised, logits)
        chosen = logits.max(dim=-1).indices if sampling.temperature == 0 else self._sample(logits)
        if self.seen is not None:
            self.seen[torch.arange(len(chosen)), chosen] = True
        ids: list[int] = chosen.tolist()
        return ids

    def keep(self, rows: list[int]) -> None:
        """Go on with these texts alone."""
        self.randoms = [self.randoms[row] for row in rows]
        if self.seen is not None:
            self.seen = self.seen[rows]

    def _sample(self, logits: Tensor) -> Tensor:
        """By inversion: the first id at which the summed probabilities exceed a uniform number."""
        top_k, top_p = self.sampling.top_k, self.sampling.top_p
        ids = None
        if top_k is not None and top_k < logits.shape[-1]:
            logits, ids = logits.topk(top_k)
        elif top_p is not None:
            logits, ids = logits.sort(dim=-1, descending=True)
        logits = (logits - logits.amax(dim=-1, keepdim=True)).double()  # so that no temperature is too low to divide by
        sums = (logits / self.sampling.temperature).softmax(dim=-1).cumsum(dim=-1)
        total = sums[:, -1:]
        if top_p is not None:  # up to and including the id that reaches top_p
            last = torch.searchsorted(sums, top_p * total).clamp(max=sums.shape[-1] - 1)
            total = sums.gather(1, last)
        uniform = torch.tensor([[random.random()] for random in self.randoms], dtype=torch.float64)
        place = torch.searchsorted(sums, uniform.to(sums.device) * total, right=True)
        place = place.clamp(max=sums.shape[-1] - 1)  # a model that has diverged, to NaN, says anything
        return (place if ids is None else ids.gather(1, place)).squeeze(1)


def _generated(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    sampling: Sampling,
    stop_ids: Sequence[int],
    vocab_size: int | None,
) -> Iterator[tuple[int, int]]:
    """(prompt's number, its next id), as they arise."""
    if not prompts:
        return
    vocab_size = model.config.vocab_size if vocab_size is None else min(vocab_size, model.config.vocab_size)
    decoding = _Decoding(model, prompts, max_new_tokens)
    drawing = _Drawing(sampling, prompts, vocab_size, decoding.device)
    rows = list(range(len(prompts)))
    for number in range(max_new_tokens):
        with evaluating(model):  # and nothing is yielded inside
            logits = decoding.read_newest() if number else decoding.read_prompts()
            chosen = drawing.draw(logits[:, :vocab_size])
        going = [n for n, token_id in enumerate(chosen) if token_id not in stop_ids]
        for n in going:
            decoding.texts[n].append(chosen[n])
            yield rows[n], chosen[n]
        if not going:
            return
        if len(going) < len(rows):
            decoding.keep(going)
            drawing.keep(going)
            rows = [rows[n] for n in going]


def _refuse_prompts(model: GPT, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens is {max_new_tokens}: it must be 0 or more.")
    for number, prompt in enumerate(prompts):
        name = "the prompt" if len(prompts) == 1 else f"prompt {number}"
        if not prompt:
            raise ValueError("a prompt needs at least one token: begin with the end-of-text id.")
        if len(prompt) > model.config.max_seq_len:
            raise ValueError(
                f"{name} has {len(prompt)} tokens, more than the model's max_seq_len {model.config.max_seq_len}: "
                "shorten it."
            )
        if strange := [token_id for token_id in prompt if not 0 <= token_id < model.config.vocab_size]:
            raise ValueError(
                f"{name} holds the id {strange[0]}, and the model's vocabulary has {model.config.vocab_size}: "
                "it was made with another tokenizer."
            )
