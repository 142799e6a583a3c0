"""The result of a comparison as text, for the page and for the terminal."""

import math
import statistics
from collections.abc import Sequence

from analysis.comparison.comparison import Candidate, Comparison
from analysis.comparison.metric_result import MetricResult, Significance
from analysis.comparison.tukey_test import CONFIDENCE, AdditiveNoiseModel

LOSS = "val/loss/mean"
_OF_LOWEST = {Significance.BEST: "the best", Significance.TIED: "tied for best", Significance.LOWEST: "the lowest"}
_MOST_NAMED = 3  # candidates in a sentence


def verdict_sentence(comparison: Comparison) -> str:
    """Which candidates are best by mean validation loss, as far as the test can tell; empty if none is ranked.

    Args:
        comparison: the compared runs.
    """
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
    # its name is that of one of its runs
    if len(cells) == 1 and len(losses := comparison.candidates[0].values(LOSS)) > 1:
        mean, deviation = statistics.mean(losses), statistics.stdev(losses)
        return (
            f"{_counted(len(losses), 'run')} of one setting: a loss of {mean:.4f}, with a standard deviation of "
            f"{deviation:.4f} between seeds; there is no other setting to compare it with."
        )
    if n_finite == 1:
        return f"{name} is the only one {f'with a finite loss{diverged}' if diverged else 'that is ranked'}."
    worse, unknown = len(names[Significance.WORSE]), len(names[Significance.UNKNOWN])
    if names[Significance.BEST]:
        return f"{name} is best; all others are worse{diverged}."
    of_unknown = f"for {unknown} the test is not possible" if unknown else ""
    if tied := names[Significance.TIED]:
        of_worse = "the other is worse" if worse == 1 and not unknown else f"{worse} are worse" if worse else ""
        rest = "".join(f"; {said}" for said in (of_worse, of_unknown) if said)
        return f"{_listed(tied)} are tied for best: their differences are not significant{rest}{diverged}."
    if worse:
        others = f"{worse} of {_counted(n_finite - 1, 'other')} {'is' if worse == 1 else 'are'} worse"
        return f"{name} has the lowest loss; {others}, {of_unknown}{diverged}."
    return f"{name} has the lowest loss; whether the difference is significant is unknown{diverged}."


def seed_noise_sentences(comparison: Comparison) -> list[str]:
    """Sentences on the size of the noise between seeds, the model of the noise, and reasons to doubt the model.

    Args:
        comparison: the compared runs.
    """
    noise = comparison.noise(LOSS)
    if noise is None:
        return []
    if noise.deviation is None:
        why = (
            "repeats of the same settings are bit-identical"
            if noise.degrees
            else "no two runs differ only in their seed"
        )
        return [
            f"The noise between seeds is unknown: {why}.",
            "Significance cannot be tested; train some of the settings with another seed as well.",
        ]
    known = f"{noise.deviation:.2g} nats, {_counted(noise.degrees, 'degree')} of freedom"
    if noise.paired:
        sentences = [
            f"Paired by seed: {_runs_of(noise)}, standard deviation of the residual {known}.",
            "The model assumes that a seed shifts the loss of all settings equally; the residual is the rest.",
        ]
    else:
        sentences = [
            f"Not paired: {_runs_of(noise)}, standard deviation of a run around the mean of its setting {known}.",
            "With the same seeds for all settings, runs are compared seed by seed, which usually detects smaller "
            "differences.",
        ]
    least, most = noise.least_difference(1), max(len(candidate.runs) for candidate in comparison.candidates)
    if least is not None:
        several = f", and with {most} seeds each if by more than {noise.least_difference(most):.2g}" if most > 1 else ""
        sentences.append(
            f"By Tukey's test, with {CONFIDENCE:.0%} confidence for all pairs together, two settings with one run each "
            f"differ significantly if their losses differ by more than {least:.2g}{several}."
        )
    if noise.unequal_spread:
        sentences.append(
            "Warning: the variances of the settings differ (Bartlett's test, p < 0.01), so one noise for all is too "
            "small for some of them and too large for others: compare their own standard deviations."
        )
    return sentences


def significance_text(cell: MetricResult) -> str:
    """Text that says whether a candidate's difference from the lowest is significant, with the p-value.

    Args:
        cell: a metric of the candidate.
    """
    if cell.lowest:
        return _OF_LOWEST[cell.standing]
    if not math.isfinite(cell.mean):
        return "not finite"
    p = cell.p_value
    if p is None:
        return "unknown"
    return f"{'yes' if cell.beyond_noise else 'no'}, {f'p = {p:.2g}' if p >= 1e-4 else 'p < 0.0001'}"


def seeds_text(candidate: Candidate) -> str:
    """The number of a candidate's runs as text."""
    return _counted(len(candidate.runs), "seed")


def format_metric(value: float, kind: str) -> str:
    """A metric as text.

    Args:
        value: value of the metric.
        kind: one of `METRIC_KINDS`.
    """
    if not math.isfinite(value):
        return "not finite"
    return f"{value:,.2f}" if kind == "perplexity" else f"{value:.4f}"


def difference_text(cell: MetricResult, kind: str) -> str:
    """The signed difference to the lowest candidate as text; empty if there is no difference.

    Args:
        cell: a metric of a candidate.
        kind: one of `METRIC_KINDS`.
    """
    if cell.lowest or not math.isfinite(cell.difference):
        return ""
    return f"{'-' if cell.difference < 0 else '+'}{format_metric(abs(cell.difference), kind)}"


def _runs_of(noise: AdditiveNoiseModel) -> str:
    settings, seeds = _counted(noise.n_settings, "setting"), _counted(noise.n_seeds, "seed")
    if len(noise.values) == noise.n_settings * noise.n_seeds:
        return f"{settings} \N{MULTIPLICATION SIGN} {seeds}"
    return f"{_counted(len(noise.values), 'run')} of {settings} with {seeds}"


def _listed(names: Sequence[str]) -> str:
    """Names in a sentence; of many, only the first."""
    named = (
        [*names] if len(names) <= _MOST_NAMED else [*names[: _MOST_NAMED - 1], f"{len(names) - _MOST_NAMED + 1} more"]
    )
    return f"{', '.join(named[:-1])} and {named[-1]}"


def _counted(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
