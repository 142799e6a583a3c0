"""Describe a fitted law in sentences, for its page, the terminal and best_mix.yaml."""

from collections.abc import Sequence

import numpy as np

from mix_laws.best_mix_search import BestMix, PredictedLoss
from mix_laws.cross_validation import CrossValidation, ErrorReduction
from mix_laws.fitted_mix_law import MixLaw


def law_sentences(law: MixLaw) -> list[str]:
    """Return sentences about the law's form, its predictive power and its limits."""
    check = law.check
    n, k = law.ratios.shape
    form = (
        "The law uses shares in the exponent, as published; their square roots do not predict left-out runs better."
        if law.form.power == 1
        else "The law uses square roots of shares in the exponent, which predict left-out runs better than shares."
    )
    how = "each from all others" if check.leaves_one_out else f"in {check.n_folds} folds"
    sentences = [_enough(n, k), form]
    if not check.beats_mean:
        chance = _chance(check.gain_over(check.mean))
        sentences.append(
            f"No model predicts left-out runs better than their mean ({chance}). Root mean square errors, predicted "
            f"{how}: {_rmse(check.law)} nats with the law, {_rmse(check.linear)} with a linear fit, "
            f"{_rmse(check.mean)} with the mean. These runs do not show that the mix matters."
        )
        return [sentence for sentence in sentences if sentence]
    against = check.gain_over(check.linear)
    than_linear = (
        f"{against.share:.0%} less than a linear fit ({_chance(against)})"
        if check.beats_linear
        else f"not significantly better than a linear fit ({_rmse(check.linear)}, {_chance(against)})"
    )
    sentences.append(
        f"The law predicts unseen runs, {how}, with a root mean square error of {_rmse(check.law)} nats, "
        f"{than_linear}; the error of the mean of the runs is {_rmse(check.mean)}."
    )
    noise, degrees = law.noise
    if degrees:
        sentences.append(
            f"Repeats of a mix have a standard deviation of {_root_mean(noise):.2g} nats ({degrees} "
            f"degree{'s' * (degrees > 1)} of freedom): no prediction of a run can be more accurate."
        )
    return [sentence for sentence in sentences if sentence]


def is_trusted(check: CrossValidation) -> bool:
    """Return whether the law is good enough to choose a mix."""
    return check.beats_mean


def best_mix_sentences(best: BestMix, law: MixLaw, sources: Sequence[str]) -> list[str]:
    """Return sentences about the best mix: whether there is a significant one, which caps bind, and comparisons."""
    if not is_trusted(law.check):
        return ["No mix is significantly better than the prior, which is kept, under the caps."]
    caps = [
        f"{source} at {100 * cap:.3g} %"
        for source, cap, binds in zip(sources, best.aim.caps, best.bind, strict=True)
        if binds
    ]
    bound = f"Binding caps: {', '.join(caps)}." if caps else "No cap is binding."
    if not best.is_better:
        return [
            "No mix is significantly better than the prior, which is kept, under the caps: the lowest predicted loss "
            f"differs from that of the prior by {_difference(best.to_prior)} nats.",
            bound,
        ]
    claim = "the best mix is significantly better" if best.beats_best_run else "the difference is not significant"
    return [
        f"The loss predicted for the best mix differs from that of the prior by {_difference(best.to_prior)} nats.",
        f"Its difference to the loss predicted for the mix of the best run is {_difference(best.to_best_run)} nats: {claim}.",
        bound,
    ]


def chosen_mix(best: BestMix, law: MixLaw) -> np.ndarray:
    """Return the mix to train, (sources,): the prior unless another is significantly better."""
    return best.mix if is_trusted(law.check) and best.is_better else best.prior


def _enough(n: int, k: int) -> str:
    if n < 2 * k:
        return f"Too few runs: {n} for {k} sources. A law needs at least {2 * k}; the following results are unreliable."
    if n < 4 * k:
        return f"{n} runs for {k} sources are enough for a fit; {4 * k} are recommended."
    return ""


def _difference(predicted: PredictedLoss) -> str:
    return f"{predicted.loss:+.4f} ({predicted.low:+.4f} to {predicted.high:+.4f})"


def _chance(gain: ErrorReduction) -> str:
    return f"p = {gain.p_value:.2g}" if gain.p_value >= 1e-4 else "p < 0.0001"


def _rmse(errors: np.ndarray) -> str:
    return f"{_root_mean(errors):.3g}"


def _root_mean(values: np.ndarray) -> float:
    return float(np.sqrt((values**2).mean()))
