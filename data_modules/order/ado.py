"""ADO: mix weights that follow the training losses (Jiang et al. 2024, arXiv:2410.11820).

For each source, a power law L(n) = eps + beta n^-alpha is fitted to its training loss, where n is the number of tokens
of the run so far. The source's learning speed, -dL/dn = alpha beta n^-alpha / n, determines its preference:

    preference_k  ∝  prior_k · h_k^0.5 · speed_k
    weights       =  0.1 preference + 0.9 mean of all weights since the first step

h is the exponential mean (0.1 per step) of a source's recent mix weight: a loss that falls because of other sources earns
less credit. No weight is below its floor.

All functions are pure functions of recorded values.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from data_modules.order.mix_weights import apply_floor, is_number, normalize_weights

SMOOTHING = 0.1  # gamma of both means in the paper
CREDIT = 0.5  # s in the paper
UNIT = 2**-20  # weights are integer multiples of it, which JSON represents exactly
_ALPHAS = np.linspace(0.02, 1.0, 99)
_LEAST_POINTS = 3  # minimum number of points for a curve with three parameters


@dataclass(frozen=True, kw_only=True)
class AdoPolicy:
    """Settings for the updates of the mix weights.

    Raises:
        ValueError: A number is out of range.
    """

    every: int
    """Number of steps between two updates; updates are made at multiples of this number."""
    warmup: float
    """Fraction of the run in which the weights of the keyframe apply; the fits leave out the first half of this period."""
    floor: Mapping[str, float] = field(default_factory=dict)
    """Minimum weight of a source, or of each source of a mix, after an update."""
    record: str | None = None
    """Path of a run's mix_weights.jsonl, whose updates are repeated regardless of the losses; None: the losses decide."""

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
                f"curriculum.ado.record is {self.record!r}: it must be the path of a mix_weights.jsonl, or null."
            )

    @staticmethod
    def of(section: Any) -> "AdoPolicy":
        """Read the section `curriculum.ado`. Raises ValueError if the section is not a mapping, or a number is out of
        range.
        """
        if not isinstance(section, Mapping):
            raise ValueError(
                f"curriculum.ado is {section!r}: it must be null, or a mapping with the keys every and warmup and, "
                "optionally, floor and record."
            )
        return AdoPolicy(**section)

    def next_update(self, step: int, *, steps: int) -> int:
        """Return the first step after `step` with new weights; `steps`, the run's length, if there is none."""
        first = max(step // self.every + 1, math.ceil(round(self.warmup * steps / self.every, 6)))
        return min(first * self.every, steps)

    def updates(self, *, after: int, steps: int) -> list[int]:
        """Return the steps of all updates after a step, in a run of `steps` steps."""
        found = []
        while (after := self.next_update(after, steps=steps)) < steps:
            found.append(after)
        return found

    def ends_point(self, step: int, *, begun: int) -> bool:
        """Return whether a point of the loss curves that started after `begun` ends at `step`. There are ten points per
        update."""
        return step - begun >= max(1, self.every // 10) or step % self.every == 0


class LossCurve(NamedTuple):
    """Training loss of one source; each point covers several consecutive steps."""

    tokens: np.ndarray  # (points,) float64: tokens of the whole run up to the middle of each point
    nats: np.ndarray  # (points,) float64: summed loss, in nats
    bearing: np.ndarray  # (points,) float64: number of loss-bearing tokens in the sum


class CurveFit(NamedTuple):
    """The power law L(n) = eps + beta n^-alpha."""

    alpha: float
    beta: float
    eps: float

    def loss(self, n: float) -> float:
        """Return the loss after n tokens, in nats per loss-bearing token."""
        return self.eps + self.beta * n**-self.alpha

    def speed(self, n: float) -> float:
        """Return how much one more token reduces the loss after n tokens, in nats per loss-bearing token."""
        return self.alpha * (self.loss(n) - self.eps) / n


def fit_curves(tokens: np.ndarray, losses: np.ndarray, importance: np.ndarray) -> CurveFit:
    """Fit the power law with eps, beta >= 0, and alpha on a grid, by weighted least squares.

    Args:
        tokens: (points,), positive; at least three points.
        losses: (points,) nats per loss-bearing token.
        importance: (points,), positive weights of the squared residuals.
    """
    largest = tokens.max()
    x = (tokens / largest) ** -_ALPHAS[:, None]  # (alphas, points)
    share = importance / importance.sum()
    mean_x, mean_y = x @ share, float(losses @ share)
    dx, dy = x - mean_x[:, None], losses - mean_y
    variance = (dx * dx) @ share
    # For each alpha, fit a line with slope beta and intercept eps. If one would be negative, the optimum is on the
    # border.
    beta = np.maximum(np.divide((dx * dy) @ share, variance, out=np.zeros_like(variance), where=variance > 0), 0.0)
    eps = mean_y - beta * mean_x
    through_zero = (x * losses) @ share / ((x * x) @ share)
    beta, eps = np.where(eps < 0, through_zero, beta), np.maximum(eps, 0.0)
    residuals = ((eps[:, None] + beta[:, None] * x - losses) ** 2) @ share
    best = int(residuals.argmin())
    alpha = float(_ALPHAS[best])
    return CurveFit(alpha, float(beta[best] * largest**alpha), float(eps[best]))


def fit_curve(curve: LossCurve, *, leave_out: float) -> CurveFit | None:
    """Fit the power law of a source to its points after `leave_out` tokens; None if there are too few points."""
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
    """Compute the new mix weights.

    Args:
        fits: Source -> power law. The preference of a source without a power law is its prior.
        tokens: Number of tokens of the run so far.
        prior: Source -> mix weight at the start of the run. The weights sum to 1.
        past: (number of steps, mix weights) of each period since the start.
        floors: Source -> minimum weight, for sources with a minimum weight.

    Returns:
        Source -> mix weight, an integer multiple of 2^-20. The weights sum to 1.
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
    """Round weights to multiples of UNIT, but not below the floors. The largest weight absorbs the difference to 1."""
    units = {s: max(round(weight / UNIT), math.ceil(floors.get(s, 0.0) / UNIT)) for s, weight in weights.items()}
    largest = max(units, key=lambda source: units[source])
    units[largest] += round(1 / UNIT) - sum(units.values())
    return {source: n * UNIT for source, n in units.items()}
