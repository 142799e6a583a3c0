"""The mix with the least predicted loss, under caps and near a prior; and whether that is more than noise."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from mix_laws.cross_validation import CONFIDENCE
from mix_laws.mix_law import MixLaw
from mix_laws.simplex import clip_to_caps, random_mixes

_CANDIDATES = 2000
_STARTS = 4
_TINY = 1e-12
_AT_CAP = 1e-4


@dataclass(frozen=True)
class SearchTarget:
    """What is to be least, and what a mix may be."""

    weights: np.ndarray  # (validation,), of the losses in their mean, summing to 1
    prior: np.ndarray  # (sources,), the mix to stay close to
    caps: np.ndarray  # (sources,), the most of each
    closeness: float
    """Nats of loss that a mix must win for each nat of its Kullback-Leibler divergence from the prior."""

    def divergence(self, mixes: np.ndarray) -> np.ndarray:
        """From the prior, nats: (mixes, sources) -> (mixes,)."""
        shares = np.maximum(mixes, _TINY)
        nats: np.ndarray = (mixes * np.log(shares / np.maximum(self.prior, _TINY))).sum(axis=1)
        return nats


@dataclass(frozen=True)
class PredictedLoss:
    """Weighted mean of the validation losses of a mix, nats, and the ends of the law's interval."""

    loss: float
    low: float
    high: float


@dataclass(frozen=True)
class BestMix:
    """What the search found, beside the prior and the best run."""

    mix: np.ndarray  # (sources,)
    prior: np.ndarray  # (sources,), under the caps
    best_run: int
    """The run whose measured losses have the least weighted mean."""
    aim: SearchTarget
    of_mix: PredictedLoss
    of_prior: PredictedLoss
    of_best_run: PredictedLoss
    to_prior: PredictedLoss
    """The mix minus the prior, law by law of the bootstrap, and without the luck of a mix that was chosen for looking best."""
    to_best_run: PredictedLoss
    bind: np.ndarray  # (sources,), whether the share is at its cap

    @property
    def is_better(self) -> bool:
        """Than the prior, beyond what other samples of the runs would have made of it."""
        return self.to_prior.high < 0

    @property
    def beats_best_run(self) -> bool:
        """As `is_better`, than the mix of the best run."""
        return self.to_best_run.high < 0


def find_best_mix(law: MixLaw, aim: SearchTarget) -> BestMix:
    """Search the mixes under the caps for the least predicted loss plus closeness times divergence.

    With shares as they are in the exponent the search has one lowest point, as all its terms are convex; with their roots it
    may have several, and begins at the best of many mixes.

    Raises:
        ValueError: the caps leave no mix.
    """
    if aim.caps.sum() < 1 - 1e-9:
        raise ValueError(f"the caps of all sources sum to {aim.caps.sum():.3g}: no mix is below all of them.")
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
    """From a mix to the lowest one near it, in the features of the law, in which it has a slope everywhere."""
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
    """How much better than `other` the lowest mix of a law looks to that law than it is, nats.

    The laws of the bootstrap are to ours as ours is to the truth: each chooses its own lowest mix, and ours judges it.
    """
    losses, other_loss = _weighted(law, candidates) @ aim.weights, float(_weighted(law, other[None])[0] @ aim.weights)
    draws, other_draws = _drawn(law, candidates) @ aim.weights, _drawn(law, other[None])[:, 0] @ aim.weights
    chosen = (draws + aim.closeness * aim.divergence(candidates)).argmin(axis=1)  # (draws,)
    looks, own = draws[np.arange(len(draws)), chosen] - other_draws, losses[chosen] - other_loss
    return max(0.0, float((own - looks).mean()))


def _drawn(law: MixLaw, mixes: np.ndarray) -> np.ndarray:
    """(draws, mixes, validation), also of a law of one loss."""
    draws = law.draws(mixes)
    return draws.reshape(len(draws), len(mixes), -1)


def _weighted(law: MixLaw, mixes: np.ndarray) -> np.ndarray:
    """(mixes, validation), also of a law of one loss."""
    return law.predict(mixes).reshape(len(mixes), -1)


def _predicted(loss: float, draws: np.ndarray) -> PredictedLoss:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return PredictedLoss(float(loss), float(low), float(high))
