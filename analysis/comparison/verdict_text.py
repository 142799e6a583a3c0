"""What a comparison comes to, in words: the same on its page and in the terminal."""

import math
import statistics
from collections.abc import Sequence

from analysis.comparison.comparison import Candidate, Comparison
from analysis.comparison.metric_significance import MetricResult, Significance
from analysis.comparison.tukey_test import CONFIDENCE, AdditiveNoiseModel

LOSS = "val/loss/mean"
_OF_LOWEST = {Significance.BEST: "the best", Significance.TIED: "tied for best", Significance.LOWEST: "the lowest"}
_MOST_NAMED = 3  # candidates in a sentence


def verdict_sentence(comparison: Comparison) -> str:
    """Which candidates are the best by the mean validation loss, as far as the test tells; empty: none is ranked."""
    cells = comparison.column(LOSS)
    order = sorted(range(len(cells)), key=lambda n: (not cells[n].lowest, cells[n].mean))
    names = {
        standing: [comparison.candidates[n].name for n in order if cells[n].standing is standing]
        for standing in Significance
    }
    n_finite = len(cells) - len(names[Significance.NOT_FINITE])
    if not n_finite:
        return ""
    name = comparison.candidates[order[0]].name
    diverged = f"; {len(cells) - n_finite} diverged" if n_finite < len(cells) else ""
    if len(cells) == 1 and len(losses := comparison.candidates[0].values(LOSS)) > 1:  # named by one of its seeds
        mean, deviation = statistics.mean(losses), statistics.stdev(losses)
        return (
            f"{_counted(len(losses), 'run')} of one setting: a loss of {mean:.4f}, with a standard deviation of {deviation:.4f} "
            "between seeds; there is nothing to compare it with."
        )
    if n_finite == 1:
        return f"{name} is the only one {f'with a finite loss{diverged}' if diverged else 'that is ranked'}."
    worse, unknown = len(names[Significance.WORSE]), len(names[Significance.UNKNOWN])
    if names[Significance.BEST]:
        return f"{name} is best; all others are worse{diverged}."
    of_unknown = f"of {unknown} nothing can be said" if unknown else ""
    if tied := names[Significance.TIED]:
        of_worse = "the other is worse" if worse == 1 and not unknown else f"{worse} are worse" if worse else ""
        rest = "".join(f"; {said}" for said in (of_worse, of_unknown) if said)
        return f"{_listed(tied)} are tied for best: they cannot be told apart{rest}{diverged}."
    if worse:
        others = f"{worse} of {_counted(n_finite - 1, 'other')} {'is' if worse == 1 else 'are'} worse"
        return f"{name} has the lowest loss; {others}, {of_unknown}{diverged}."
    return f"{name} has the lowest loss; whether that is more than chance is unknown{diverged}."


def seed_noise_sentences(comparison: Comparison) -> list[str]:
    """How large the noise between seeds is, by which model, and what speaks against it: a sentence each."""
    noise = comparison.noise(LOSS)
    if noise is None:
        return []
    if noise.deviation is None:
        why = (
            "repeats of the same settings came out the same to the bit"
            if noise.degrees
            else "no two runs repeat each other"
        )
        return [
            f"The noise between seeds is unknown: {why}.",
            "Whether a difference is more than chance cannot be said; train some of the settings with another seed as well.",
        ]
    known = f"{noise.deviation:.2g} nats, {_counted(noise.degrees, 'degree')} of freedom"
    if noise.paired:
        sentences = [
            f"Seeds as pairs: {_runs_of(noise)}, standard deviation of the residual {known}.",
            "A seed is taken to shift the loss of all settings alike, and the residual is what is left.",
        ]
    else:
        sentences = [
            f"No pairs: {_runs_of(noise)}, standard deviation of a run about the mean of its setting {known}.",
            "Settings that are trained with the same seeds are compared seed by seed, which usually tells finer differences.",
        ]
    least, most = noise.least_difference(1), max(len(candidate.runs) for candidate in comparison.candidates)
    if least is not None:
        several = f", of {most} seeds each where it is more than {noise.least_difference(most):.2g}" if most > 1 else ""
        sentences.append(
            f"By Tukey's test, which holds for all pairs at once at {CONFIDENCE:.0%}, two settings with a run each differ where "
            f"their loss is more than {least:.2g} apart{several}."
        )
    if noise.unequal_spread:
        sentences.append(
            "Warning: the settings scatter unequally (Bartlett's test, p < 0.01), and one noise for all is too small for some "
            "of them and too large for others: look at their own deviations."
        )
    return sentences


def significance_text(cell: MetricResult) -> str:
    """Whether a candidate's difference to the lowest is more than noise."""
    if cell.lowest:
        return _OF_LOWEST[cell.standing]
    if not math.isfinite(cell.mean):
        return "not a number"
    p = cell.p_value
    if p is None:
        return "unknown"
    return f"{'yes' if cell.beyond_noise else 'no'}, {f'p = {p:.2g}' if p >= 1e-4 else 'p < 0.0001'}"


def seeds_text(candidate: Candidate) -> str:
    """How many runs it has, in words."""
    return _counted(len(candidate.runs), "seed")


def format_metric(value: float, kind: str) -> str:
    """A metric, as it is read."""
    if not math.isfinite(value):
        return "not finite"
    return f"{value:,.2f}" if kind == "perplexity" else f"{value:.4f}"


def difference_text(cell: MetricResult, kind: str) -> str:
    """To the lowest, with its sign; empty where there is none."""
    if cell.lowest or not math.isfinite(cell.difference):
        return ""
    return f"{'-' if cell.difference < 0 else '+'}{format_metric(abs(cell.difference), kind)}"


def _runs_of(noise: AdditiveNoiseModel) -> str:
    settings, seeds = _counted(noise.n_settings, "setting"), _counted(noise.n_seeds, "seed")
    if len(noise.values) == noise.n_settings * noise.n_seeds:
        return f"{settings} \N{MULTIPLICATION SIGN} {seeds}"
    return f"{_counted(len(noise.values), 'run')} of {settings} with {seeds}"


def _listed(names: Sequence[str]) -> str:
    """Names in a sentence; of many the first."""
    named = (
        [*names] if len(names) <= _MOST_NAMED else [*names[: _MOST_NAMED - 1], f"{len(names) - _MOST_NAMED + 1} more"]
    )
    return f"{', '.join(named[:-1])} and {named[-1]}"


def _counted(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
