"""Curriculum policies: registered functions that change the mix weights of the keyframes over the run.

All calls are made before training, one per step: `policy(progress, weights, **settings)`.

    progress   float, completed fraction of the run: 0 at the first step, below 1 at the last
    weights    {source: share}, shares that the keyframes give at this step; the shares sum to 1
    settings   settings of `curriculum.policy` other than the name

A policy returns {source or mix: weight}. Weights are relative, and a source that is not named has weight 0. The result
must depend on the arguments only, because a resumed run calls the policy again and must get the same weights.
"""

import hashlib
from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

import numpy as np

from data_modules.order.mix_weights import check_weights, normalize_weights

CurriculumPolicy = Callable[..., Mapping[str, float]]
CURRICULUM_POLICIES: dict[str, CurriculumPolicy] = {}
"""Name -> policy. `running.registration.register_curriculum_policy` adds entries."""


def check_policy(policy: Any, others: Mapping[str, Any]) -> None:
    """Check the section `curriculum.policy`.

    Args:
        policy: The section.
        others: Name -> value of the curriculum's settings that cannot be combined with a policy.

    Raises:
        ValueError: No policy of this name is registered, the policy does not accept these settings, or one of `others`
            is set.
    """
    if not isinstance(policy, Mapping) or "name" not in policy:
        raise ValueError(
            f"curriculum.policy is {policy!r}: it must have name and the settings of that policy, or be null."
        )
    name, settings = _name_and_settings(policy)
    if name not in CURRICULUM_POLICIES:
        known = (
            f"it must be one of {', '.join(CURRICULUM_POLICIES)}"
            if CURRICULUM_POLICIES
            else "no policy is registered. Import the module that registers it with +imports=[my_module]"
        )
        raise ValueError(f"curriculum.policy.name is {name!r}: {known}.")
    try:
        signature(CURRICULUM_POLICIES[name]).bind(0.0, {}, **settings)
    except TypeError as error:
        raise ValueError(f"curriculum.policy: the settings of {name} do not fit: {error}.") from error
    for other, value in others.items():
        if value:
            raise ValueError(f"curriculum.policy cannot be combined with curriculum.{other}: remove one of them.")


class PolicyShares:
    """Shares of the sources at each step of a run with a policy.

    The shares are stored as float32, whose 24 bits leave out the last digits, which may differ between machines.

    Args:
        policy: `name` and settings, checked.
        of_keyframes: (steps, sources), shares that the keyframes give.
        sources: Sources with weight in a keyframe.
        by_source: Replaces the mixes in weights by their sources.

    Raises:
        ValueError: The policy raises an exception, or returns invalid weights.
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
            except Exception as error:  # user code may raise anything
                why = f"{type(error).__name__}: {' '.join(str(error).split()).rstrip('.')}"
                raise ValueError(f"{where} failed ({why}).") from error
            check_weights(f"{where}: weights", weights)
            for source, share in normalize_weights(by_source(weights)).items():
                if source not in sources:
                    allowed = ", ".join(sources)
                    raise ValueError(f"{where}: weights has {source}: the keyframes give weight only to {allowed}.")
                self._shares[step, sources.index(source)] = share
        self.digest = hashlib.sha256(self._shares.tobytes()).hexdigest()[:12]
        """12 hexadecimal digits that identify the shares."""

    def at(self, steps: np.ndarray) -> np.ndarray:
        """Return shares: (n,) int -> (n, sources) float64. Each row sums to 1. After the last step, the shares of the
        last step apply.
        """
        shares = self._shares[np.minimum(steps, len(self._shares) - 1)].astype(np.float64)
        total = np.asarray(sum(shares.T))  # one source after another, for the same sum on every machine
        return shares / total[:, None]


def _name_and_settings(policy: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    return str(policy["name"]), {key: value for key, value in policy.items() if key != "name"}
