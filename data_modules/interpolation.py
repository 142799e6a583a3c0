"""How mix weights move from one keyframe to the next."""

from collections.abc import Callable
from typing import Literal

import numpy as np

Interpolation = Literal["step", "linear", "cosine"]


def _cosine(x: np.ndarray) -> np.ndarray:
    """(1 - cos(pi x)) / 2 on 0 .. 1, by its series: unlike np.cos it is the same number on every machine."""
    half = np.pi * (x - 0.5)  # the curve is (1 + sin(half)) / 2
    term, total = half, half
    for n in range(3, 25, 2):
        term = term * (half * half) * (-1 / (n * (n - 1)))
        total = total + term
    return np.clip((1 + total) / 2, 0.0, 1.0)


EASINGS: dict[Interpolation, Callable[[np.ndarray], np.ndarray]] = {
    "step": np.zeros_like,  # the earlier keyframe holds until the next
    "linear": lambda x: x,
    "cosine": _cosine,
}
"""Share of the way in time, 0 to 1 -> share of the way in weight."""
