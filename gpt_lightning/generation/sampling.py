"""Draw the next id from logits."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Settings for drawing a token from logits.

    Raises:
        ValueError: A value is out of range.
    """

    temperature: float = 1.0
    """Divides the logits; 0 always takes the most likely id."""
    top_k: int | None = None
    """Draw only from the k most likely ids; None: from all."""
    top_p: float | None = None
    """Draw only from the most likely ids whose total probability reaches top_p (arXiv:1904.09751); None: from all."""
    repetition_penalty: float = 1.0
    """Divides positive and multiplies negative logits of ids already in the text (arXiv:1909.05858); 1: no effect."""
    seed: int = 0
    """Each prompt has a random generator seeded by (seed, index of the prompt). So in fp32 an answer does not depend on
    the other prompts. In half precision, products of a batch round differently from those of a single row.
    """

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
    """Draw one id per text, each text with its own random generator.

    Args:
        sampling: The settings.
        texts: Token ids of each text so far, for the repetition penalty.
        vocab_size: Number of logits per row.
        device: The device of the logits.
    """

    def __init__(
        self, sampling: Sampling, texts: Sequence[Sequence[int]], vocab_size: int, device: torch.device
    ) -> None:
        self.sampling = sampling
        self.randoms = [random.Random(f"{sampling.seed}/{row}") for row in range(len(texts))]
        self.seen: Tensor | None = None  # (rows, vocab) bool: ids that the text already contains
        if sampling.repetition_penalty != 1:
            seen = torch.zeros(len(texts), vocab_size, dtype=torch.bool)
            for row, text in enumerate(texts):
                seen[row, [i for i in text if i < vocab_size]] = True
            self.seen = seen.to(device)

    def uniforms(self) -> Tensor | None:
        """Return the next random number of each text, (rows, 1) float64 on the CPU; None for temperature 0."""
        if self.sampling.temperature == 0:
            return None
        return torch.tensor([[random.random()] for random in self.randoms], dtype=torch.float64)

    def draw(self, logits: Tensor, uniforms: Tensor | None) -> Tensor:
        """Draw an id for each row of logits.

        All tensors are on the device of the logits, so the method can be captured in a CUDA graph.

        Args:
            logits: (rows, vocab)
            uniforms: (rows, 1) in [0, 1); None takes the most likely id.

        Returns:
            (rows,) int64
        """
        if self.seen is not None:
            penalty = self.sampling.repetition_penalty
            penalised = torch.where(logits > 0, logits / penalty, logits * penalty)
            logits = torch.where(self.seen, penalised, logits)
        chosen = logits.max(dim=-1).indices if uniforms is None else self._sample(logits, uniforms)
        if self.seen is not None:
            self.seen.scatter_(1, chosen[:, None], True)
        return chosen

    def keep(self, places: list[int]) -> None:
        """Keep only the texts at these places."""
        self.randoms = [self.randoms[place] for place in places]
        if self.seen is not None:
            self.seen = self.seen[places]

    def _sample(self, logits: Tensor, uniforms: Tensor) -> Tensor:
        """Sample by inversion: take the first id at which the cumulative probability exceeds the uniform number."""
        top_k, top_p = self.sampling.top_k, self.sampling.top_p
        ids = None
        if top_k is not None and top_k < logits.shape[-1]:
            logits, ids = logits.topk(top_k)
        elif top_p is not None:
            logits, ids = logits.sort(dim=-1, descending=True)
        logits = (logits - logits.amax(dim=-1, keepdim=True)).double()  # avoids overflow at low temperatures
        sums = (logits / self.sampling.temperature).softmax(dim=-1).cumsum(dim=-1)
        total = sums[:, -1:]
        if top_p is not None:  # up to and including the id that reaches top_p
            last = torch.searchsorted(sums, top_p * total).clamp(max=sums.shape[-1] - 1)
            total = sums.gather(1, last)
        place = torch.searchsorted(sums, uniforms * total, right=True)
        place = place.clamp(max=sums.shape[-1] - 1)  # NaN logits of a diverged model would give an index out of range
        return (place if ids is None else ids.gather(1, place)).squeeze(1)
