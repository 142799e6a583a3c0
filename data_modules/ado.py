"""ADO: weights that follow the losses (Jiang et al. 2024, arXiv:2410.11820).

For each source a power law L(n) = eps + beta n^-alpha is fitted to its own training loss, n the tokens of the run so far. What it
would still give, its learning speed -dL/dn = alpha beta n^-alpha / n, decides what it is preferred by:

    preference_k  ∝  prior_k · h_k^0.5 · speed_k        h: how much it was trained on lately, an exponential mean by 0.1 a step,
                                                          so that a loss that falls by other sources' help earns less credit
    weights       =  0.1 preference + 0.9 mean of all weights since the first step,            and no source below its floor

Pure functions of what was recorded: nothing here has state.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from data_modules.mix_weights import apply_floor, is_number, normalize_weights

SMOOTHING = 0.1  # gamma of both means
CREDIT = 0.5  # s
UNIT = 2**-20  # weights are whole multiples of it, which JSON holds exactly
_ALPHAS = np.linspace(0.02, 1.0, 99)
_LEAST_POINTS = 3  # of a curve with three unknowns


@dataclass(frozen=True, kw_only=True)
class AdoPolicy:
    """When weights are updated, and how far they may move.

    Raises:
        ValueError: a number is out of range.
    """

    every: int
    """Steps between two updates, which are made at multiples of it."""
    warmup: float
    """The fraction of the run in which the weights of the keyframe hold; half of it is left out of the fits."""
    floor: Mapping[str, float] = field(default_factory=dict)
    """The least weight of a source, or of each source of a mix, after an update."""
    record: str | None = None
    """The weights.jsonl of a run whose updates are made again, whatever the losses are; None: the losses decide."""

    def __post_init__(self) -> None:
        if not isinstance(self.every, int) or isinstance(self.every, bool) or self.every < 1:
            raise ValueError(f"curriculum.ado.every is {self.every!r}: it must be a number of steps, 1 or more.")
        if not is_number(self.warmup) or not 0 <= self.warmup < 1:
            raise ValueError(
                f"curriculum.ado.warmup is {self.warmup!r}: it must be a fraction of the run, 0 or more and below 1."
            )
        if not isinstance(self.floor, Mapping) or not all(is_number(n) and n >= 0 for n in self.floor.values()):
            raise ValueError(f"curriculum.ado.floor is {self.floor!r}: it must map sources to numbers, 0 or more.")
        if self.record is not None and not isinstance(self.record, str):
            raise ValueError(
                f"curriculum.ado.record is {self.record!r}: it must be the path of a weights.jsonl, or null."
            )

    def next_update(self, step: int, *, steps: int) -> int:
        """The first step after `step` from which updated weights hold; `steps`, the run's length, if there is none."""
        first = max(step // self.every + 1, math.ceil(round(self.warmup * steps / self.every, 6)))
        return min(first * self.every, steps)

    def updates(self, *, after: int, steps: int) -> list[int]:
        """All steps of updates after one, in a run of so many steps."""
        found = []
        while (after := self.next_update(after, steps=steps)) < steps:
            found.append(after)
        return found

    def ends_point(self, step: int, *, begun: int) -> bool:
        """Whether a point of the curves that was begun after step `begun` ends after this one: there are ten an update."""
        return step - begun >= max(1, self.every // 10) or step % self.every == 0


class LossCurve(NamedTuple):
    """The training loss of one source, over consecutive stretches of steps."""

    tokens: np.ndarray  # (points,) float64: of the whole run, by the middle of each stretch
    nats: np.ndarray  # (points,) float64, summed
    bearing: np.ndarray  # (points,) float64: loss-bearing tokens that they are summed over


class CurveFit(NamedTuple):
    """L(n) = eps + beta n^-alpha."""

    alpha: float
    beta: float
    eps: float

    def loss(self, n: float) -> float:
        """Nats per loss-bearing token after n tokens."""
        return self.eps + self.beta * n**-self.alpha

    def speed(self, n: float) -> float:
        """Nats per loss-bearing token that one more token takes off."""
        return self.alpha * (self.loss(n) - self.eps) / n


def fit_curves(tokens: np.ndarray, losses: np.ndarray, importance: np.ndarray) -> CurveFit:
    """The law with eps, beta >= 0 and alpha on a grid whose weighted squared residuals are the least.

    Args:
        tokens: (points,) above 0, of at least three points.
        losses: (points,) nats per loss-bearing token.
        importance: (points,) above 0: what each squared residual is multiplied with.
    """
    largest = tokens.max()
    x = (tokens / largest) ** -_ALPHAS[:, None]  # (alphas, points)
    share = importance / importance.sum()
    mean_x, mean_y = x @ share, float(losses @ share)
    dx, dy = x - mean_x[:, None], losses - mean_y
    variance = (dx * dx) @ share
    # for each alpha a line with slope beta and intercept eps; where one of them would be negative the best is on the border
    beta = np.maximum(np.divide((dx * dy) @ share, variance, out=np.zeros_like(variance), where=variance > 0), 0.0)
    eps = mean_y - beta * mean_x
    through_zero = (x * losses) @ share / ((x * x) @ share)
    beta, eps = np.where(eps < 0, through_zero, beta), np.maximum(eps, 0.0)
    residuals = ((eps[:, None] + beta[:, None] * x - losses) ** 2) @ share
    best = int(residuals.argmin())
    alpha = float(_ALPHAS[best])
    return CurveFit(alpha, float(beta[best] * largest**alpha), float(eps[best]))


def fit_curve(curve: LossCurve, *, leave_out: float) -> CurveFit | None:
    """The law of a source, from its points after `leave_out` tokens; None: there are too few."""
    seen = (curve.bearing > 0) & (curve.tokens > leave_out)
    if seen.sum() < _LEAST_POINTS:
        return None
    return fit_curves(curve.tokens[seen], curve.nats[seen] / curve.bearing[seen], curve.bearing[seen])


def update_mix_weights(
    fits: Mapping[str, CurveFit | None],
    *,
    tokens: float,
    prior: Mapping[str, float],
    past: Sequence[tuple[int, Mapping[str, float]]],
    floors: Mapping[str, float],
) -> dict[str, float]:
    """The weights from here on, in whole multiples of 2^-20 that add up to 1.

    Args:
        fits: the law of each source; one that has none yet is preferred as much as its prior says.
        tokens: of the run so far.
        prior: the weights that the run began with, adding up to 1.
        past: those that it had since, as (steps, weights).
        floors: the least weight of the sources that have one.
    """
    steps = sum(n for n, _ in past)
    pull: dict[str, float] = {}
    mean: dict[str, float] = {}
    for source, share in prior.items():
        lately = share
        for n, weights in past:
            lately = weights[source] + (lately - weights[source]) * (1 - SMOOTHING) ** n
        mean[source] = math.fsum(n * weights[source] for n, weights in past) / steps
        law = fits[source]
        if law is not None:
            pull[source] = share * lately**CREDIT * law.speed(tokens)
    preference = dict(prior)
    if math.fsum(pull.values()) > 0:
        known = math.fsum(prior[source] for source in pull)
        preference |= {source: known * part for source, part in normalize_weights(pull).items()}
    moved = {source: SMOOTHING * preference[source] + (1 - SMOOTHING) * mean[source] for source in prior}
    return _in_units(apply_floor(floors, normalize_weights(moved)), floors)


def _in_units(weights: Mapping[str, float], floors: Mapping[str, float]) -> dict[str, float]:
    """Rounded, but not below the floors; what is lacking then is the largest one's."""
    units = {s: max(round(weight / UNIT), math.ceil(floors.get(s, 0.0) / UNIT)) for s, weight in weights.items()}
    largest = max(units, key=lambda source: units[source])
    units[largest] += round(1 / UNIT) - sum(units.values())
    return {source: n * UNIT for source, n in units.items()}
