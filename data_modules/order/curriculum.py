"""The mix of sources as a function of the step.

A curriculum sets mix weights at named points of the run, its keyframes. Resolved to a run's length, it returns for
every step the share of the step's sequences from each source. Before the first and after the last keyframe the weights
are constant.

A keyframe's weights name sources, or named mixes of sources. So one schedule, such as `gradual`, can be used in every
experiment that defines the mixes `base` and `target`.
"""

import math
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np

from data_modules.order.ado import AdoPolicy
from data_modules.order.curriculum_policy_registry import PolicyShares, check_policy
from data_modules.order.interpolation import EASINGS, Interpolation
from data_modules.order.keyframe import Keyframe, parse_keyframe
from data_modules.order.mix_weights import apply_floor, check_weights, is_number, normalize_weights

Unit = Literal["fraction", "steps", "tokens"]
OnExhausted = Literal["error", "repeat", "redistribute", "spread"]


@dataclass(frozen=True, kw_only=True)
class Curriculum:
    """The settings of a curriculum.

    Raises:
        ValueError: A name is unknown, the keyframes are out of order, a weight is negative, or all weights are zero.
    """

    keyframes: Mapping[str, Keyframe | Mapping[str, Any]]
    """In order of time; a constant mix has one keyframe."""
    mixes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Name -> weights of sources. The name can replace a source anywhere. The mix `all` has every source, equally weighted."""
    unit: Unit = "fraction"
    """Unit of the keyframes' `at`: fraction of the run, steps or tokens."""
    interpolation: Interpolation = "linear"
    """How the weights change between two keyframes; step: they change only at the later keyframe."""
    replay: Mapping[str, float] = field(default_factory=dict)
    """Minimum share of a source, or of a mix as a whole, once a keyframe has given it weight."""
    max_epochs: Mapping[str, float] = field(default_factory=dict)
    """Maximum number of passes over the training data of a source, or of each source of a mix; no limit for others."""
    on_exhausted: OnExhausted = "error"
    """What to do if the weights require more than `max_epochs`. `error`: refuse to start. `repeat`: exceed the limit.
    `redistribute`: when a source reaches its limit, give its share to the other sources by weight. `spread`: scale the
    weight of the source down over the whole run, so that it lasts to the end."""
    ado: AdoPolicy | None = None
    """How the weights follow the losses, starting from the only keyframe; None: the weights do not follow the losses."""
    policy: Mapping[str, Any] | None = None
    """Name and settings of a curriculum policy; None: no policy. See data_modules/order/curriculum_policy_registry.py."""

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
            raise ValueError("curriculum.keyframes is empty: it must have at least one keyframe.")
        for name, mix in self.mixes.items():
            check_weights(f"curriculum.mixes.{name}", mix)
        object.__setattr__(
            self, "keyframes", {name: parse_keyframe(name, entry) for name, entry in self.keyframes.items()}
        )
        previous = -math.inf
        for name, keyframe in self._frames.items():
            if keyframe.at <= previous:
                raise ValueError(
                    f"curriculum.keyframes.{name}.at is {keyframe.at}: it must be above that of the keyframe before, "
                    f"{previous}."
                )
            if self.unit != "fraction" and keyframe.at != int(keyframe.at):
                raise ValueError(
                    f"curriculum.keyframes.{name}.at is {keyframe.at}: it must be a whole number for unit={self.unit}."
                )
            if self.unit == "fraction" and keyframe.at > 1:
                raise ValueError(
                    f"curriculum.keyframes.{name}.at is {keyframe.at}: it must be at most 1 for unit=fraction."
                )
            previous = keyframe.at
        weights = [*(frame.weights for frame in self._frames.values()), *self.mixes.values()]
        named = dict.fromkeys([*self._blends, *(source for each in weights for source in each)])
        for key in ("replay", "max_epochs"):
            for name, value in getattr(self, key).items():
                if name not in named:
                    raise ValueError(
                        f"curriculum.{key}.{name} is in no keyframe and no mix: it must be one of {', '.join(named)}."
                    )
                if not is_number(value) or value < 0 or (key == "max_epochs" and value == 0):
                    least = "above 0" if key == "max_epochs" else "0 or more"
                    raise ValueError(f"curriculum.{key}.{name} is {value!r}: it must be a number, {least}.")
        if self.ado is not None and not isinstance(self.ado, AdoPolicy):
            object.__setattr__(self, "ado", AdoPolicy.of(self.ado))
        if self.ado:
            self._check_ado(self.ado, named)
        if self.policy is not None:
            check_policy(self.policy, {"ado": self.ado, "replay": self.replay})
        if sum(self.replay.values()) >= 1:
            raise ValueError(
                f"curriculum.replay adds up to {sum(self.replay.values()):g}: it must add up to less than 1."
            )

    def _check_ado(self, ado: AdoPolicy, named: Mapping[str, Any]) -> None:
        if (more := len(self.keyframes) > 1) or self.replay:
            raise ValueError(
                f"curriculum.ado is set, but the curriculum has the keyframe{'s' * more} {', '.join(self.keyframes)}"
                f"{' and has replay' * bool(self.replay)}: it must have one keyframe and no replay. "
                "Use curriculum=ado, and curriculum.ado.floor instead of replay."
            )
        if self.max_epochs and self.on_exhausted not in ("redistribute", "repeat"):
            raise ValueError(
                "with curriculum.ado and curriculum.max_epochs, curriculum.on_exhausted must be redistribute or repeat, not "
                f"{self.on_exhausted}, because the weights are not known in advance. Alternatively, remove curriculum.max_epochs."
            )
        for name in ado.floor:
            if name not in named:
                raise ValueError(
                    f"curriculum.ado.floor.{name} is in no keyframe and no mix: it must be one of {', '.join(named)}."
                )
            if ado.floor[name] > 0 and not {*self._blends.get(name, {name: 1.0})} & {*self.sources}:
                raise ValueError(
                    f"curriculum.ado.floor.{name} is {ado.floor[name]:g}: it must be 0 for sources without weight in "
                    "the keyframe. Give it some weight there, or remove the floor."
                )
        if (total := sum(self.floors.values())) >= 1:
            raise ValueError(f"curriculum.ado.floor adds up to {total:g}: it must add up to less than 1.")

    @property
    def _frames(self) -> dict[str, Keyframe]:
        return self.keyframes  # type: ignore[return-value]  # __post_init__ converts every entry to a Keyframe

    @cached_property
    def _blends(self) -> dict[str, dict[str, float]]:
        """Mix -> its sources' shares."""
        everyone = dict.fromkeys((source for mix in self.mixes.values() for source in mix), 1.0)
        return {name: normalize_weights(mix) for name, mix in ({"all": everyone} | dict(self.mixes)).items() if mix}

    def by_source(self, weights: Mapping[str, float]) -> dict[str, float]:
        """Return the same weights with every mix replaced by its sources."""
        parts: dict[str, float] = {}
        for name, weight in weights.items():
            for source, share in self._blends.get(name, {name: 1.0}).items():
                parts[source] = parts.get(source, 0.0) + weight * share
        return parts

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """Every source with weight in some keyframe, in order of first mention."""
        frames = [self.by_source(frame.weights) for frame in self._frames.values()]
        return tuple(dict.fromkeys(s for weights in frames for s, w in weights.items() if w > 0))

    @cached_property
    def limits(self) -> dict[str, float]:
        """Source -> maximum number of epochs, for sources that have a limit or are in a mix with a limit."""
        return self._each(self.max_epochs)

    @cached_property
    def floors(self) -> dict[str, float]:
        """Source -> minimum weight after an update, for sources that have a floor or are in a mix with a floor."""
        return self._each(self.ado.floor) if self.ado else {}

    def _each(self, values: Mapping[str, float]) -> dict[str, float]:
        """Assign values to sources. The value of a mix applies to each of its sources without one of its own."""
        by_mix = {s: value for name, value in values.items() for s in self._blends.get(name, ())}
        by_name = by_mix | {name: value for name, value in values.items() if name not in self._blends}
        return {source: by_name[source] for source in self.sources if source in by_name}

    def setting_of(self, source: str) -> str:
        """Return the setting that first mentions a source, for messages."""
        for name, frame in self._frames.items():
            for key in frame.weights:
                if key == source:
                    return f"curriculum.keyframes.{name}.weights.{source}"
                if source in self._blends.get(key, {}):
                    mix = key if key in self.mixes else next(mix for mix in self.mixes if source in self.mixes[mix])
                    return f"curriculum.mixes.{mix}.{source} (keyframe {name})"
        raise KeyError(source)

    def resolve(self, *, steps: int, tokens_per_step: int) -> "ResolvedCurriculum":
        """Apply the curriculum to a run of `steps` steps with `tokens_per_step` tokens each."""
        scale = {"fraction": float(steps), "steps": 1.0, "tokens": 1 / tokens_per_step}[self.unit]
        # rounded, because 0.55 x 100 is slightly more than 55 in floating point and would start one step late
        return ResolvedCurriculum(self, steps=steps, at=[round(frame.at * scale, 6) for frame in self._frames.values()])


class ResolvedCurriculum:
    """A curriculum applied to a run of a certain length.

    Args:
        curriculum: The settings.
        steps: Length of the run.
        at: Position of each keyframe, in steps.
    """

    def __init__(self, curriculum: Curriculum, *, steps: int, at: list[float]) -> None:
        self.curriculum = curriculum
        self.sources = curriculum.sources
        self.steps = steps
        self._names = list(curriculum.keyframes)
        self._at = np.array(at)
        self._pinned = np.array(_pinned(curriculum))  # (keyframes, sources), each row sums to 1
        self.policy_shares: PolicyShares | None = None
        """Shares at all steps, if the curriculum has a policy."""
        if curriculum.policy is not None:
            of_keyframes = self._weights_of_keyframes(np.arange(steps))
            self.policy_shares = PolicyShares(curriculum.policy, of_keyframes, self.sources, curriculum.by_source)

    def weights(self, step: int) -> dict[str, float]:
        """Return the share of each source in step `step` (0 is the first); the shares sum to 1."""
        return dict(zip(self.sources, self.weights_at(np.array([step]))[0].tolist(), strict=True))

    def weights_at(self, steps: np.ndarray) -> np.ndarray:
        """Return the shares at many steps: (n,) int -> (n, sources) float, in the order of `sources`."""
        return self.policy_shares.at(steps) if self.policy_shares else self._weights_of_keyframes(steps)

    def _weights_of_keyframes(self, steps: np.ndarray) -> np.ndarray:
        if len(self._at) == 1:
            return np.repeat(self._pinned, len(steps), axis=0)
        left = np.clip(np.searchsorted(self._at, steps, side="right") - 1, 0, len(self._at) - 2)
        begin, end = self._at[left], self._at[left + 1]
        x = np.clip((steps - begin) / np.maximum(end - begin, 1e-9), 0, 1)  # two keyframes may be at the same step
        # from the later keyframe on, its weights apply, whatever the interpolation
        x = np.where(steps >= end, 1.0, EASINGS[self.curriculum.interpolation](x))[:, None]
        return (1 - x) * self._pinned[left] + x * self._pinned[left + 1]

    def held(self, weights: Mapping[str, float] | None, steps: int) -> "ResolvedCurriculum":
        """Return a constant curriculum of `steps` steps with the given weights; None: the weights of this curriculum.

        Raises:
            ValueError: The weights name other sources, or are negative, or do not sum to 1.
        """
        held = copy(self)
        held.steps = steps
        if weights is not None:
            fits = set(weights) == set(self.sources) and all(is_number(w) and w >= 0 for w in weights.values())
            if not fits or abs(math.fsum(weights.values()) - 1) > 1e-9:
                raise ValueError(
                    f"the weights are {dict(weights)}: they must be shares of {', '.join(self.sources)} that sum to 1."
                )
            held._pinned = np.array([[float(weights[source]) for source in self.sources]])
        return held

    def place(self, step: int) -> str:
        """Return what determines a step's weights, for messages: the policy, a keyframe, or the two around the step."""
        if self.curriculum.policy is not None:
            return f"policy {self.curriculum.policy['name']}"
        at = int(np.searchsorted(self._at, step, side="right")) - 1
        if at < 0 or at == len(self._at) - 1 or self.curriculum.interpolation == "step":
            return f"keyframe {self._names[max(at, 0)]}"
        return f"keyframes {self._names[at]} to {self._names[at + 1]}"


def _pinned(curriculum: Curriculum) -> list[list[float]]:
    """Return the shares of each source at each keyframe, none below its replay once the source has had weight.

    The floor then also holds between keyframes, because interpolated shares lie between those at the keyframes.
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
