"""The mix of sources as a curve over the run.

A curriculum pins weights at named points of the run, its keyframes. Resolved to a run's length it answers, for every step,
what share of the step's sequences comes from each source. Before the first keyframe and after the last the weights stay.

A keyframe's weights name sources, or mixes of sources that have a name themselves. So one shape of a run, say `gradual`,
serves every experiment that says what its `base` and its `target` are.
"""

import math
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np

from data_modules.ado import AdoPolicy
from data_modules.curriculum_policies import PolicyShares, check_policy
from data_modules.interpolation import EASINGS, Interpolation
from data_modules.mix_weights import apply_floor, check_weights, is_number, normalize_weights

Unit = Literal["fraction", "steps", "tokens"]
OnExhausted = Literal["error", "repeat", "redistribute", "spread"]


@dataclass(frozen=True)
class Keyframe:
    """Weights pinned at one point of the run."""

    at: float
    """In the curriculum's unit: fraction of the run, steps or tokens."""
    weights: Mapping[str, float]
    """Relative weight by source or mix, not negative; what is not named has weight 0."""


@dataclass(frozen=True, kw_only=True)
class Curriculum:
    """What a config says of the mix.

    Raises:
        ValueError: a name is unknown, the keyframes are out of order, a weight is negative, or all of them are zero.
    """

    keyframes: Mapping[str, Keyframe | Mapping[str, Any]]
    """In the order of the run; a constant mix is one keyframe."""
    mixes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Weights of sources under a name that stands for them wherever a source may; `all` is every source they name, equally."""
    unit: Unit = "fraction"
    interpolation: Interpolation = "linear"
    replay: Mapping[str, float] = field(default_factory=dict)
    """The least share of a source, or of a mix as a whole, from the first keyframe on in which it has weight."""
    max_epochs: Mapping[str, float] = field(default_factory=dict)
    """The most passes over the training sequences of a source, or of each source of a mix; who is not named has no limit."""
    on_exhausted: OnExhausted = "error"
    """What happens where the weights ask for more than `max_epochs`: refuse to start; go on repeating; redistribute, from the
    step on in which a source reaches its limit, its share to the others by their weights; or spread the limit, scaling the
    source's weights down over the whole run so that it lasts to the end."""
    ado: AdoPolicy | None = None
    """How the weights follow the losses, from the one keyframe on; None: they do not."""
    policy: Mapping[str, Any] | None = None
    """`name` of a function of the user's own that changes the keyframes' weights over the run, and its settings; None: none
    does. See data_modules/curriculum_policies.py."""

    def __post_init__(self) -> None:
        for key, kind in (("unit", Unit), ("interpolation", Interpolation), ("on_exhausted", OnExhausted)):
            if getattr(self, key) not in get_args(kind):
                raise ValueError(
                    f"curriculum.{key} is {getattr(self, key)!r}: it must be one of {', '.join(get_args(kind))}."
                )
        for key in ("keyframes", "mixes", "replay", "max_epochs"):
            if not isinstance(getattr(self, key), Mapping):
                what = "names to at and weights" if key == "keyframes" else "sources to numbers"
                raise ValueError(f"curriculum.{key} is {getattr(self, key)!r}: it must map {what}.")
        if not self.keyframes:
            raise ValueError("curriculum.keyframes is empty: a curriculum needs at least one keyframe.")
        for name, mix in self.mixes.items():
            check_weights(f"curriculum.mixes.{name}", mix)
        object.__setattr__(self, "keyframes", {name: _keyframe(name, entry) for name, entry in self.keyframes.items()})
        previous = -math.inf
        for name, keyframe in self._frames.items():
            if keyframe.at <= previous:
                raise ValueError(
                    f"curriculum.keyframes.{name}.at is {keyframe.at}: it must come after the keyframe before it, at {previous}."
                )
            if self.unit != "fraction" and keyframe.at != int(keyframe.at):
                raise ValueError(
                    f"curriculum.keyframes.{name}.at is {keyframe.at}: with unit={self.unit} it is a whole number of {self.unit}."
                )
            if self.unit == "fraction" and keyframe.at > 1:
                raise ValueError(
                    f"curriculum.keyframes.{name}.at is {keyframe.at}: a fraction of the run is at most 1."
                )
            previous = keyframe.at
        weights = [*(frame.weights for frame in self._frames.values()), *self.mixes.values()]
        named = dict.fromkeys([*self._blends, *(source for each in weights for source in each)])
        for key in ("replay", "max_epochs"):
            for name, value in getattr(self, key).items():
                if name not in named:
                    raise ValueError(
                        f"curriculum.{key}.{name} names a source that no keyframe and no mix has: they have {', '.join(named)}."
                    )
                if not is_number(value) or value < 0 or (key == "max_epochs" and value == 0):
                    least = "above 0" if key == "max_epochs" else "0 or more"
                    raise ValueError(f"curriculum.{key}.{name} is {value!r}: it must be a number, {least}.")
        if self.ado is not None and not isinstance(self.ado, AdoPolicy):
            if not isinstance(self.ado, Mapping):
                raise ValueError(f"curriculum.ado is {self.ado!r}: it must have every, warmup and floor, or be null.")
            object.__setattr__(self, "ado", AdoPolicy(**self.ado))
        if self.ado:
            self._check_ado(self.ado, named)
        if self.policy is not None:
            check_policy(self.policy)
            for other in ("ado", "replay"):
                if getattr(self, other):
                    raise ValueError(f"curriculum.policy does not go with curriculum.{other}: leave one of them out.")
        if sum(self.replay.values()) >= 1:
            raise ValueError(
                f"curriculum.replay adds up to {sum(self.replay.values()):g}: it must leave some of each step."
            )

    def _check_ado(self, ado: AdoPolicy, named: Mapping[str, Any]) -> None:
        if len(self.keyframes) > 1 or self.replay:
            raise ValueError(
                f"curriculum.ado begins with the weights of one keyframe, and there are {', '.join(self.keyframes)}"
                f"{', and replay' * bool(self.replay)}: take curriculum=ado, and curriculum.ado.floor for replay."
            )
        if self.max_epochs and self.on_exhausted not in ("redistribute", "repeat"):
            raise ValueError(
                f"curriculum.on_exhausted is {self.on_exhausted}, and with curriculum.ado nobody knows what the weights will be: "
                "set redistribute or repeat, or leave curriculum.max_epochs out."
            )
        for name in ado.floor:
            if name not in named:
                raise ValueError(
                    f"curriculum.ado.floor.{name} names a source that no keyframe and no mix has: they have {', '.join(named)}."
                )
            if ado.floor[name] > 0 and not {*self._blends.get(name, {name: 1.0})} & {*self.sources}:
                raise ValueError(
                    f"curriculum.ado.floor.{name} is {ado.floor[name]:g}, and nothing of it has weight in the keyframe: the "
                    "policy moves weight between sources that have some; give it a little there, or no floor."
                )
        if (total := sum(self.floors.values())) >= 1:
            raise ValueError(f"curriculum.ado.floor adds up to {total:g}: it must leave some of each step.")

    @property
    def _frames(self) -> dict[str, Keyframe]:
        return self.keyframes  # type: ignore[return-value]  # __post_init__ made every entry a Keyframe

    @cached_property
    def _blends(self) -> dict[str, dict[str, float]]:
        """Shares of the sources of each mix."""
        everyone = dict.fromkeys((source for mix in self.mixes.values() for source in mix), 1.0)
        return {name: normalize_weights(mix) for name, mix in ({"all": everyone} | dict(self.mixes)).items() if mix}

    def by_source(self, weights: Mapping[str, float]) -> dict[str, float]:
        """The same weights with every mix taken apart into its sources."""
        parts: dict[str, float] = {}
        for name, weight in weights.items():
            for source, share in self._blends.get(name, {name: 1.0}).items():
                parts[source] = parts.get(source, 0.0) + weight * share
        return parts

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """Every source that has weight somewhere, in the order of first mention."""
        frames = [self.by_source(frame.weights) for frame in self._frames.values()]
        return tuple(dict.fromkeys(s for weights in frames for s, w in weights.items() if w > 0))

    @cached_property
    def limits(self) -> dict[str, float]:
        """The most epochs of each source that has a limit, by its own name or by a mix."""
        return self._each(self.max_epochs)

    @cached_property
    def floors(self) -> dict[str, float]:
        """The least weight after an update of each source that has one, by its own name or by a mix."""
        return self._each(self.ado.floor) if self.ado else {}

    def _each(self, values: Mapping[str, float]) -> dict[str, float]:
        """A value of a mix is that of each of its sources which has none by its own name."""
        by_mix = {s: value for name, value in values.items() for s in self._blends.get(name, ())}
        by_name = by_mix | {name: value for name, value in values.items() if name not in self._blends}
        return {source: by_name[source] for source in self.sources if source in by_name}

    def setting_of(self, source: str) -> str:
        """The setting that first names a source."""
        for name, frame in self._frames.items():
            for key in frame.weights:
                if key == source:
                    return f"curriculum.keyframes.{name}.weights.{source}"
                if source in self._blends.get(key, {}):
                    mix = key if key in self.mixes else next(mix for mix in self.mixes if source in self.mixes[mix])
                    return f"curriculum.mixes.{mix}.{source} (keyframe {name})"
        raise KeyError(source)

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
        self._names = list(curriculum.keyframes)
        self._at = np.array(at)
        self._pinned = np.array(_pinned(curriculum))  # (keyframes, sources), each row sums to 1
        self.policy_shares: PolicyShares | None = None
        """The weights of all steps, where a policy decides them."""
        if curriculum.policy is not None:
            of_keyframes = self._weights_of_keyframes(np.arange(steps))
            self.policy_shares = PolicyShares(curriculum.policy, of_keyframes, self.sources, curriculum.by_source)

    def weights(self, step: int) -> dict[str, float]:
        """The share of each source in the sequences of step `step` (0 is the first), summing to 1."""
        return dict(zip(self.sources, self.weights_at(np.array([step]))[0].tolist(), strict=True))

    def weights_at(self, steps: np.ndarray) -> np.ndarray:
        """`weights` for many steps at once: (n,) int -> (n, sources) float, in the order of `sources`."""
        return self.policy_shares.at(steps) if self.policy_shares else self._weights_of_keyframes(steps)

    def _weights_of_keyframes(self, steps: np.ndarray) -> np.ndarray:
        if len(self._at) == 1:
            return np.repeat(self._pinned, len(steps), axis=0)
        left = np.clip(np.searchsorted(self._at, steps, side="right") - 1, 0, len(self._at) - 2)
        begin, end = self._at[left], self._at[left + 1]
        x = np.clip((steps - begin) / np.maximum(end - begin, 1e-9), 0, 1)  # two keyframes may share a step
        # from the later keyframe on its own weights hold, whatever the interpolation
        x = np.where(steps >= end, 1.0, EASINGS[self.curriculum.interpolation](x))[:, None]
        return (1 - x) * self._pinned[left] + x * self._pinned[left + 1]

    def held(self, weights: Mapping[str, float] | None, steps: int) -> "ResolvedCurriculum":
        """A curriculum of one mix for `steps` steps, with the weights given, or its own.

        Raises:
            ValueError: the weights are not those of its sources, each a number of 0 or more and together 1.
        """
        held = copy(self)
        held.steps = steps
        if weights is not None:
            fits = set(weights) == set(self.sources) and all(is_number(w) and w >= 0 for w in weights.values())
            if not fits or abs(math.fsum(weights.values()) - 1) > 1e-9:
                raise ValueError(f"the weights {dict(weights)} are not those of {', '.join(self.sources)}.")
            held._pinned = np.array([[float(weights[source]) for source in self.sources]])
        return held

    def place(self, step: int) -> str:
        """What decides a step's weights, for messages: the policy, a keyframe, or the two between which the step lies."""
        if self.curriculum.policy is not None:
            return f"policy {self.curriculum.policy['name']}"
        at = int(np.searchsorted(self._at, step, side="right")) - 1
        if at < 0 or at == len(self._at) - 1 or self.curriculum.interpolation == "step":
            return f"keyframe {self._names[max(at, 0)]}"
        return f"keyframes {self._names[at]} to {self._names[at + 1]}"


def _pinned(curriculum: Curriculum) -> list[list[float]]:
    """The shares of each source at each keyframe, none below its replay once it has been trained on.

    What holds at two keyframes holds between them, as interpolated shares lie between theirs.
    """
    floors = curriculum.by_source(curriculum.replay)
    seen: set[str] = set()
    rows = []
    for frame in curriculum._frames.values():
        shares = normalize_weights(curriculum.by_source(frame.weights))
        seen |= {source for source, share in shares.items() if share > 0}
        shares = apply_floor({source: floor for source, floor in floors.items() if source in seen}, shares)
        rows.append([shares.get(source, 0.0) for source in curriculum.sources])
    return rows


def _keyframe(name: str, entry: Keyframe | Mapping[str, Any]) -> Keyframe:
    where = f"curriculum.keyframes.{name}"
    if not isinstance(entry, Keyframe):
        if not isinstance(entry, Mapping):
            raise ValueError(f"{where} is {entry!r}: a keyframe has exactly at and weights.")
        if set(entry) != {"at", "weights"}:
            raise ValueError(f"{where} has the keys {', '.join(entry)}: a keyframe has exactly at and weights.")
        entry = Keyframe(at=entry["at"], weights=entry["weights"])
    if not is_number(entry.at) or entry.at < 0:
        raise ValueError(f"{where}.at is {entry.at!r}: it must be a number, 0 or more.")
    check_weights(f"{where}.weights", entry.weights)
    return entry
