"""What a fitted law comes to, in words: the same on its page, in the terminal and above best_mix.yaml."""

from collections.abc import Sequence

import numpy as np

from mix_laws.best_mix_search import BestMix, PredictedLoss
from mix_laws.cross_validation import CrossValidation, ErrorReduction
from mix_laws.mix_law import MixLaw


def law_sentences(law: MixLaw) -> list[str]:
    """Its form, whether it predicts, and what speaks against it: a sentence each."""
    check = law.check
    n, k = law.ratios.shape
    form = (
        "The law counts shares in the exponent, as it was published; their square roots predict left-out runs no better."
        if law.form.power == 1
        else "The law counts the square roots of shares in the exponent, which predicts left-out runs better than the shares."
    )
    how = "each from all others" if check.leaves_one_out else f"in {check.n_folds} folds"
    sentences = [_enough(n, k), form]
    if not check.beats_mean:
        chance = _chance(check.gain_over(check.mean))
        sentences.append(
            f"Nothing beats the mean of the runs ({chance}): predicted {how}, they are off by {_rmse(check.law)} nats with the "
            f"law, by {_rmse(check.linear)} with a linear fit and by {_rmse(check.mean)} with the mean. These runs do not show "
            "that the mix matters."
        )
        return [sentence for sentence in sentences if sentence]
    against = check.gain_over(check.linear)
    than_linear = (
        f"{against.share:.0%} less than a linear fit ({_chance(against)})"
        if check.beats_linear
        else f"no clearly better than a linear fit ({_rmse(check.linear)}, {_chance(against)})"
    )
    sentences.append(
        f"Runs that it has not seen, {how}, it predicts to {_rmse(check.law)} nats (root mean square), {than_linear}; the mean "
        f"of the runs is off by {_rmse(check.mean)}."
    )
    noise, degrees = law.noise
    if degrees:
        sentences.append(
            f"Repeats of a mix scatter by {_root_mean(noise):.2g} nats ({degrees} degree{'s' * (degrees > 1)} of freedom): no "
            "prediction of a run can be better than that."
        )
    return [sentence for sentence in sentences if sentence]


def is_trusted(check: CrossValidation) -> bool:
    """Whether a mix is worth choosing by it."""
    return check.beats_mean


def best_mix_sentences(best: BestMix, law: MixLaw, sources: Sequence[str]) -> list[str]:
    """Whether there is a mix to be claimed, which caps hold it, and how it compares: a sentence each."""
    if not is_trusted(law.check):
        return ["No mix is claimed to be best: the prior is kept, under the caps."]
    caps = [
        f"{source} at {100 * cap:.3g} %"
        for source, cap, binds in zip(sources, best.aim.caps, best.bind, strict=True)
        if binds
    ]
    bound = f"Caps that hold it: {', '.join(caps)}." if caps else "No cap holds it."
    if not best.is_better:
        return [
            f"No mix is claimed to be best: the lowest predicted one and the prior differ by {_difference(best.to_prior)} nats, "
            "which may be nothing. The prior is kept, under the caps.",
            bound,
        ]
    claim = "better than it too" if best.beats_best_run else "no claim that it is better"
    return [
        f"The mix with the lowest predicted loss is {_difference(best.to_prior)} nats from the prior.",
        f"To the mix of the best run it is {_difference(best.to_best_run)} nats: {claim}.",
        bound,
    ]


def chosen_mix(best: BestMix, law: MixLaw) -> np.ndarray:
    """The mix to train, (sources,): the prior where no other is claimed."""
    return best.mix if is_trusted(law.check) and best.is_better else best.prior


def _enough(n: int, k: int) -> str:
    if n < 2 * k:
        return (
            f"Too few runs: {n} of {k} sources, and a law takes {2 * k} at least; what follows is not to be relied on."
        )
    if n < 4 * k:
        return f"{n} runs of {k} sources are enough to fit; {4 * k} would be comfortable."
    return ""


def _difference(predicted: PredictedLoss) -> str:
    return f"{predicted.loss:+.4f} ({predicted.low:+.4f} to {predicted.high:+.4f})"


def _chance(gain: ErrorReduction) -> str:
    return f"p = {gain.p_value:.2g}" if gain.p_value >= 1e-4 else "p < 0.0001"


def _rmse(errors: np.ndarray) -> str:
    return f"{_root_mean(errors):.3g}"


def _root_mean(values: np.ndarray) -> float:
    return float(np.sqrt((values**2).mean()))
