"""The mix of sources as a curve over the run.

A curriculum pins weights at named points of the run, its keyframes. Resolved to a run's length it answers, for every step,
what share of the step's sequences comes from each source. Before the first keyframe and after the last the weights stay.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np

Unit = Literal["fraction", "steps", "tokens"]
Interpolation = Literal["step", "linear", "cosine"]
OnExhausted = Literal["error", "repeat"]

_EASINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "step": np.zeros_like,  # the earlier keyframe holds until the next
    "linear": lambda x: x,
    "cosine": lambda x: (1 - np.cos(np.pi * x)) / 2,
}


@dataclass(frozen=True)
class Keyframe:
    """Weights pinned at one point of the run."""

    at: float
    """In the curriculum's unit: fraction of the run, steps or tokens."""
    weights: Mapping[str, float]
    """Relative weight by source, not negative; a source that is not named has weight 0."""


@dataclass(frozen=True, kw_only=True)
class Curriculum:
    """What a config says of the mix.

    Raises:
        ValueError: a name is unknown, the keyframes are out of order, a weight is negative, or all of them are zero.
    """

    keyframes: Mapping[str, Keyframe | Mapping[str, Any]]
    """In the order of the run; a constant mix is one keyframe."""
    unit: Unit = "fraction"
    interpolation: Interpolation = "linear"
    max_epochs: Mapping[str, float] = field(default_factory=dict)
    """The most passes over a source's training sequences; a source that is not named has no limit."""
    on_exhausted: OnExhausted = "error"
    """What happens where the plan exceeds `max_epochs`: refuse to start, or go on repeating."""

    def __post_init__(self) -> None:
        for key, kind in (("unit", Unit), ("interpolation", Interpolation), ("on_exhausted", OnExhausted)):
            if getattr(self, key) not in get_args(kind):
                raise ValueError(
                    f"curriculum.{key} is {getattr(self, key)!r}: it must be one of {', '.join(get_args(kind))}."
                )
        if not self.keyframes:
            raise ValueError("curriculum.keyframes is empty: a curriculum needs at least one keyframe.")
        object.__setattr__(self, "keyframes", {name: _keyframe(name, entry) for name, entry in self.keyframes.items()})
        previous = -math.inf
        for name, keyframe in self._frames.items():
            if keyframe.at <= previous:
                raise ValueError(
                    f"curriculum.keyframes.{name}.at is {keyframe.at}: it must come after the keyframe before it, at {previous}."
                )
            if self.unit == "fraction" and keyframe.at > 1:
                raise ValueError(
                    f"curriculum.keyframes.{name}.at is {keyframe.at}: a fraction of the run is at most 1."
                )
            previous = keyframe.at
        if not isinstance(self.max_epochs, Mapping):
            raise ValueError(f"curriculum.max_epochs is {self.max_epochs!r}: it must map sources to numbers of epochs.")
        named = {source for frame in self._frames.values() for source in frame.weights}
        for source in self.max_epochs:
            if source not in named:
                raise ValueError(f"curriculum.max_epochs.{source} names a source that no keyframe has.")

    @property
    def _frames(self) -> dict[str, Keyframe]:
        return self.keyframes  # type: ignore[return-value]  # __post_init__ made every entry a Keyframe

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """Every source that has weight somewhere, in the order of first mention."""
        return tuple(dict.fromkeys(s for frame in self._frames.values() for s, w in frame.weights.items() if w > 0))

    def resolve(self, *, steps: int, tokens_per_step: int) -> "ResolvedCurriculum":
        """Pin the curriculum to a run of `steps` steps of `tokens_per_step` tokens each."""
        scale = {"fraction": float(steps), "steps": 1.0, "tokens": 1 / tokens_per_step}[self.unit]
        # rounded, as 0.55 x 100 is a little more than 55 in floating point and would begin a step late
        return ResolvedCurriculum(self, steps=steps, at=[round(frame.at * scale, 6) for frame in self._frames.values()])


class ResolvedCurriculum:
    """A curriculum pinned to a run's length.

    Args:
        curriculum: what the config says.
        steps: length of the run.
        at: where each keyframe lies, in steps.
    """

    def __init__(self, curriculum: Curriculum, *, steps: int, at: list[float]) -> None:
        self.curriculum = curriculum
        self.sources = curriculum.sources
        self.steps = steps
        self._at = np.array(at)
        rows = [[frame.weights.get(source, 0.0) for source in self.sources] for frame in curriculum._frames.values()]
        self._pinned = np.array(rows) / np.sum(rows, axis=1, keepdims=True)  # (keyframes, sources), each row sums to 1

    def weights(self, step: int) -> dict[str, float]:
        """The share of each source in the sequences of step `step` (0 is the first), summing to 1."""
        return dict(zip(self.sources, self.weights_at(np.array([step]))[0].tolist(), strict=True))

    def weights_at(self, steps: np.ndarray) -> np.ndarray:
        """`weights` for many steps at once: (n,) int -> (n, sources) float, in the order of `sources`."""
        if len(self._at) == 1:
            return np.repeat(self._pinned, len(steps), axis=0)
        left = np.clip(np.searchsorted(self._at, steps, side="right") - 1, 0, len(self._at) - 2)
        begin, end = self._at[left], self._at[left + 1]
        x = np.clip((steps - begin) / np.maximum(end - begin, 1e-9), 0, 1)  # two keyframes may share a step
        # from the later keyframe on its own weights hold, whatever the interpolation
        x = np.where(steps >= end, 1.0, _EASINGS[self.curriculum.interpolation](x))[:, None]
        return (1 - x) * self._pinned[left] + x * self._pinned[left + 1]


def _keyframe(name: str, entry: Keyframe | Mapping[str, Any]) -> Keyframe:
    where = f"curriculum.keyframes.{name}"
    if not isinstance(entry, Keyframe):
        if set(entry) != {"at", "weights"}:
            raise ValueError(f"{where} has the keys {', '.join(entry)}: a keyframe has exactly at and weights.")
        entry = Keyframe(at=entry["at"], weights=entry["weights"])
    if not _is_number(entry.at) or entry.at < 0:
        raise ValueError(f"{where}.at is {entry.at!r}: it must be a number, 0 or more.")
    if not isinstance(entry.weights, Mapping):
        raise ValueError(f"{where}.weights is {entry.weights!r}: it must map sources to weights.")
    for source, weight in entry.weights.items():
        if not _is_number(weight) or weight < 0:
            raise ValueError(f"{where}.weights.{source} is {weight!r}: a weight is a number, 0 or more.")
    if not sum(entry.weights.values()) > 0:
        raise ValueError(f"{where}.weights are all zero: at least one source needs a weight above 0.")
    return entry


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
