"""How the next id is drawn from the logits."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


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


class TokenSampler:
    """Draws one id per text, each from random numbers of its own.

    Args:
        vocab_size: how many logits a row has.
    """

    def __init__(
        self, sampling: Sampling, texts: Sequence[Sequence[int]], vocab_size: int, device: torch.device
    ) -> None:
        self.sampling = sampling
        self.randoms = [random.Random(f"{sampling.seed}/{row}") for row in range(len(texts))]
        self.seen: Tensor | None = None  # (rows, vocab) bool, the ids that a text holds
        if sampling.repetition_penalty != 1:
            seen = torch.zeros(len(texts), vocab_size, dtype=torch.bool)
            for row, text in enumerate(texts):
                seen[row, [i for i in text if i < vocab_size]] = True
            self.seen = seen.to(device)

    def uniforms(self) -> Tensor | None:
        """(rows, 1) float64 on the CPU, the next random number of each text; None: the likeliest id needs none."""
        if self.sampling.temperature == 0:
            return None
        return torch.tensor([[random.random()] for random in self.randoms], dtype=torch.float64)

    def draw(self, logits: Tensor, uniforms: Tensor | None) -> Tensor:
        """(rows,), an id for each row of logits, (rows, vocab). It reads and writes tensors of the logits' device alone."""
        if self.seen is not None:
            penalty = self.sampling.repetition_penalty
            penalised = torch.where(logits > 0, logits / penalty, logits * penalty)
            logits = torch.where(self.seen, penalised, logits)
        chosen = logits.max(dim=-1).indices if uniforms is None else self._sample(logits, uniforms)
        if self.seen is not None:
            self.seen.scatter_(1, chosen[:, None], True)
        return chosen

    def keep(self, places: list[int]) -> None:
        """Continue only the texts at these places."""
        self.randoms = [self.randoms[place] for place in places]
        if self.seen is not None:
            self.seen = self.seen[places]

    def _sample(self, logits: Tensor, uniforms: Tensor) -> Tensor:
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
        place = torch.searchsorted(sums, uniforms * total, right=True)
        place = place.clamp(max=sums.shape[-1] - 1)  # a model that has diverged, to NaN, says anything
        return (place if ids is None else ids.gather(1, place)).squeeze(1)
