"""Curriculum policies: functions of the user's own that change the mix weights of the keyframes over the run.

A policy is called as `policy(progress, weights, **settings)`, once for each step before the first one is trained:

    progress   float, the completed share of the run: 0 at the first step, below 1 at the last
    weights    {source: share}, what the keyframes say at this step; the shares add up to 1
    settings   what `curriculum.policy` has beside the name

It returns {source or mix: weight}; weights are relative, and a source that is not named has weight 0. It must depend on its
arguments alone, because a run that goes on after a stop calls it again and must get the same weights.
"""

import hashlib
from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

import numpy as np

from data_modules.mix_weights import check_weights, normalize_weights

CurriculumPolicy = Callable[..., Mapping[str, float]]
CURRICULUM_POLICIES: dict[str, CurriculumPolicy] = {}
"""By name; `running.registration.register_curriculum_policy` adds to them."""


def check_policy(policy: Any) -> None:
    """Check the section `curriculum.policy`.

    Raises:
        ValueError: no such policy is registered, or it does not take these settings.
    """
    if not isinstance(policy, Mapping) or "name" not in policy:
        raise ValueError(
            f"curriculum.policy is {policy!r}: it must have a name and the settings of that policy, or be null."
        )
    name, settings = _name_and_settings(policy)
    if name not in CURRICULUM_POLICIES:
        known = ", ".join(CURRICULUM_POLICIES) or "those that a module registers: type +imports=[my_module]"
        raise ValueError(f"curriculum.policy.name is {name!r}: it must be one of {known}.")
    try:
        signature(CURRICULUM_POLICIES[name]).bind(0.0, {}, **settings)
    except TypeError as error:
        raise ValueError(f"curriculum.policy: the settings of {name} do not fit: {error}.") from error


class PolicyShares:
    """The shares that a policy gives the sources at each step of a run.

    They are kept as float32, whose 24 bits leave out the last digits, in which machines may differ.

    Args:
        policy: `name` and settings, checked.
        of_keyframes: (steps, sources), the shares that the keyframes say.
        sources: the sources that have weight in a keyframe.
        by_source: replaces the mixes in weights by their sources.

    Raises:
        ValueError: the policy fails, or what it returns cannot be the weights of these sources.
    """

    def __init__(
        self,
        policy: Mapping[str, Any],
        of_keyframes: np.ndarray,
        sources: tuple[str, ...],
        by_source: Callable[[Mapping[str, float]], Mapping[str, float]],
    ) -> None:
        name, settings = _name_and_settings(policy)
        function, n_steps = CURRICULUM_POLICIES[name], len(of_keyframes)
        self._shares = np.zeros(of_keyframes.shape, dtype=np.float32)
        for step, row in enumerate(of_keyframes.tolist()):
            progress = step / n_steps
            where = f"curriculum.policy {name} at progress {progress:.6g}"
            try:
                weights = function(progress, dict(zip(sources, row, strict=True)), **settings)
            except Exception as error:  # it is the user's: anything can be wrong with it
                why = f"{type(error).__name__}: {' '.join(str(error).split()).rstrip('.')}"
                raise ValueError(f"{where} fails ({why}).") from error
            check_weights(f"{where}: weights", weights)
            for source, share in normalize_weights(by_source(weights)).items():
                if source not in sources:
                    allowed = ", ".join(sources)
                    raise ValueError(f"{where}: weights has {source}; the keyframes give weight to {allowed} only.")
                self._shares[step, sources.index(source)] = share
        self.digest = hashlib.sha256(self._shares.tobytes()).hexdigest()[:12]
        """The same for the same shares."""

    def at(self, steps: np.ndarray) -> np.ndarray:
        """(n,) int -> (n, sources) float64, each row adding up to 1; after the last step its shares hold."""
        shares = self._shares[np.minimum(steps, len(self._shares) - 1)].astype(np.float64)
        total = np.asarray(sum(shares.T))  # one source after the other: the same sum on every machine
        return shares / total[:, None]


def _name_and_settings(policy: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    return str(policy["name"]), {key: value for key, value in policy.items() if key != "name"}
