"""Find the mix with the lowest predicted loss, under caps and near a prior, and test whether this mix is better than
the prior.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from mix_laws.cross_validation import CONFIDENCE
from mix_laws.fitted_mix_law import MixLaw
from mix_laws.simplex import clip_to_caps, random_mixes

_CANDIDATES = 2000
_STARTS = 4
_TINY = 1e-12
_AT_CAP = 1e-4


@dataclass(frozen=True)
class SearchTarget:
    """The objective and the constraints of the search."""

    weights: np.ndarray  # (validation,), weights of the losses in their mean, summing to 1
    prior: np.ndarray  # (sources,), the mix to stay close to
    caps: np.ndarray  # (sources,), maximum share of each source
    closeness: float
    """Decrease in loss, in nats, that justifies one nat of Kullback-Leibler divergence from the prior."""

    def divergence(self, mixes: np.ndarray) -> np.ndarray:
        """Return the divergence of mixes from the prior, in nats: (mixes, sources) -> (mixes,)."""
        shares = np.maximum(mixes, _TINY)
        nats: np.ndarray = (mixes * np.log(shares / np.maximum(self.prior, _TINY))).sum(axis=1)
        return nats


@dataclass(frozen=True)
class PredictedLoss:
    """Predicted weighted mean of the validation losses of a mix, in nats, with the ends of the law's interval."""

    loss: float
    low: float
    high: float


@dataclass(frozen=True)
class BestMix:
    """Result of the search, compared with the prior and the best run."""

    mix: np.ndarray  # (sources,)
    prior: np.ndarray  # (sources,), clipped to the caps
    best_run: int
    """Index of the run with the lowest weighted mean of measured losses."""
    aim: SearchTarget
    of_mix: PredictedLoss
    of_prior: PredictedLoss
    of_best_run: PredictedLoss
    to_prior: PredictedLoss
    """Loss of the mix minus that of the prior, over bootstrap laws, corrected for the choice of the minimum."""
    to_best_run: PredictedLoss
    bind: np.ndarray  # (sources,), whether the share equals its cap

    @property
    def is_better(self) -> bool:
        """Whether the mix is significantly better than the prior, over bootstrap samples of the runs."""
        return self.to_prior.high < 0

    @property
    def beats_best_run(self) -> bool:
        """Whether the mix is significantly better than the mix of the best run."""
        return self.to_best_run.high < 0


def find_best_mix(law: MixLaw, aim: SearchTarget) -> BestMix:
    """Find the mix under the caps that minimises the predicted loss plus closeness times divergence.

    If the exponent is linear in the shares, all terms are convex and there is one minimum. With square roots of shares
    there may be several minima, so the search starts from the best of many mixes.

    Args:
        law: The fitted law.
        aim: Objective and constraints.

    Raises:
        ValueError: The caps sum to less than 1.
    """
    if aim.caps.sum() < 1 - 1e-9:
        raise ValueError(f"the caps of all sources sum to {aim.caps.sum():.3g}: they must sum to at least 1.")
    prior = clip_to_caps(aim.prior, aim.caps)
    run = int((law.losses @ aim.weights).argmin())

    def value(mixes: np.ndarray) -> np.ndarray:
        return _weighted(law, mixes) @ aim.weights + aim.closeness * aim.divergence(mixes)

    candidates = random_mixes(_CANDIDATES, aim.caps, floor=0.0, seed=0)
    starts = [prior, clip_to_caps(law.ratios[run], aim.caps), *candidates[value(candidates).argsort()[:_STARTS]]]
    found = np.array([*starts, *(_descend(law, aim, start) for start in starts)])
    mix = found[value(found).argmin()]
    named = np.array([mix, prior, law.ratios[run]])
    losses, draws = _weighted(law, named) @ aim.weights, _drawn(law, named) @ aim.weights  # (3,), (draws, 3)
    luck = [_luck(law, aim, candidates, other) for other in named[1:]]
    return BestMix(
        mix=mix,
        prior=prior,
        best_run=run,
        aim=aim,
        of_mix=_predicted(losses[0], draws[:, 0]),
        of_prior=_predicted(losses[1], draws[:, 1]),
        of_best_run=_predicted(losses[2], draws[:, 2]),
        to_prior=_predicted(losses[0] - losses[1] + luck[0], draws[:, 0] - draws[:, 1] + luck[0]),
        to_best_run=_predicted(losses[0] - losses[2] + luck[1], draws[:, 0] - draws[:, 2] + luck[1]),
        bind=(mix > aim.caps - _AT_CAP) & (aim.caps < 1),
    )


def _descend(law: MixLaw, aim: SearchTarget, start: np.ndarray) -> np.ndarray:
    """Find the local minimum near a mix, in the law's features, in which the objective has gradients everywhere."""
    power = law.form.power
    t, level = law.t, law.parameters[:, 1 + len(start) :].sum(axis=1)

    def value(z: np.ndarray) -> tuple[float, np.ndarray]:
        mix = z ** (1 / power)
        slope = z ** (1 / power - 1) / power  # d mix / d z
        exponentials = aim.weights * np.exp(np.minimum(t @ z + level, 30.0))
        away = np.log(np.maximum(mix, _TINY) / np.maximum(aim.prior, _TINY))
        loss = aim.weights @ law.c + exponentials.sum() + aim.closeness * (mix * away).sum()
        return float(loss), exponentials @ t + aim.closeness * (away + 1) * slope

    whole = {
        "type": "eq",
        "fun": lambda z: (z ** (1 / power)).sum() - 1,
        "jac": lambda z: z ** (1 / power - 1) / power,
    }
    bounds = [(0.0, cap**power) for cap in aim.caps]
    options = {"maxiter": 300, "ftol": 1e-10}
    end = minimize(value, start**power, jac=True, bounds=bounds, constraints=[whole], method="SLSQP", options=options)
    mix = np.clip(end.x, 0.0, None) ** (1 / power)
    return clip_to_caps(mix / mix.sum(), aim.caps) if np.isfinite(mix).all() and mix.sum() > 0 else start


def _luck(law: MixLaw, aim: SearchTarget, candidates: np.ndarray, other: np.ndarray) -> float:
    """Estimate, in nats, by how much the law overestimates the advantage over `other` of the mix that it considers
    best.

    The bootstrap laws relate to ours as ours relates to the truth: each chooses its own best mix, which our law then
    evaluates.
    """
    losses, other_loss = _weighted(law, candidates) @ aim.weights, float(_weighted(law, other[None])[0] @ aim.weights)
    draws, other_draws = _drawn(law, candidates) @ aim.weights, _drawn(law, other[None])[:, 0] @ aim.weights
    chosen = (draws + aim.closeness * aim.divergence(candidates)).argmin(axis=1)  # (draws,)
    looks, own = draws[np.arange(len(draws)), chosen] - other_draws, losses[chosen] - other_loss
    return max(0.0, float((own - looks).mean()))


def _drawn(law: MixLaw, mixes: np.ndarray) -> np.ndarray:
    """Return (draws, mixes, validation), also for a law of one loss."""
    draws = law.draws(mixes)
    return draws.reshape(len(draws), len(mixes), -1)


def _weighted(law: MixLaw, mixes: np.ndarray) -> np.ndarray:
    """Return (mixes, validation), also for a law of one loss."""
    return law.predict(mixes).reshape(len(mixes), -1)


def _predicted(loss: float, draws: np.ndarray) -> PredictedLoss:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return PredictedLoss(float(loss), float(low), float(high))
