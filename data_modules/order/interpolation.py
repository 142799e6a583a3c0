"""Interpolation of mix weights between two keyframes."""

from collections.abc import Callable
from typing import Literal

import numpy as np

Interpolation = Literal["step", "linear", "cosine"]


def _cosine(x: np.ndarray) -> np.ndarray:
    """(1 - cos(pi x)) / 2 on 0 .. 1, by its series; unlike np.cos it gives the same bits on every machine."""
    half = np.pi * (x - 0.5)  # the curve is (1 + sin(half)) / 2
    term, total = half, half
    for n in range(3, 25, 2):
        term = term * (half * half) * (-1 / (n * (n - 1)))
        total = total + term
    return np.clip((1 + total) / 2, 0.0, 1.0)


EASINGS: dict[Interpolation, Callable[[np.ndarray], np.ndarray]] = {
    "step": np.zeros_like,  # the earlier keyframe applies until the next
    "linear": lambda x: x,
    "cosine": _cosine,
}
"""Interpolation -> function from the fraction of the time between two keyframes to the fraction of the weight change."""
