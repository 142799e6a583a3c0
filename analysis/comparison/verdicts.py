"""What a comparison comes to, in words: the same on its page and in the terminal."""

import math

from analysis.comparison.comparing import Candidate, Cell, Comparison
from analysis.comparison.noise import CONFIDENCE, Noise

LOSS = "val/loss/mean"


def verdict_in_words(comparison: Comparison) -> str:
    """Which candidate is the best by the mean validation loss, and how many others may be as good; empty: none is ranked."""
    cells = comparison.column(LOSS)
    best = next((n for n, cell in enumerate(cells) if cell.best), None)
    if best is None:
        return ""
    name, others = (
        comparison.candidates[best].name,
        [cell for cell in cells if math.isfinite(cell.mean) and not cell.best],
    )
    diverged = len(cells) - 1 - len(others)
    said = f"; {diverged} diverged" if diverged else ""
    if not others:
        return (
            f"{name} is the only one with a finite loss{said}."
            if diverged
            else f"{name} is the only one that is ranked."
        )
    alike = sum(cell.beyond_noise is False for cell in others)
    unknown = sum(cell.beyond_noise is None for cell in others)
    if unknown == len(others):
        return f"{name} has the lowest loss; whether that is more than chance is unknown{said}."
    if alike == len(others):
        others_too = "the other cannot" if alike == 1 else f"none of the {alike} others can"
        return f"{name} has the lowest loss; {others_too} be told from it{said}."
    verdict = f"{alike} of {_counted(len(others), 'other')} cannot be told from it" if alike else "all others are worse"
    if unknown:
        verdict = (
            f"{alike} of {_counted(len(others), 'other')} cannot be told from it, and of {unknown} nothing can be said"
        )
    return f"{name} is best; {verdict}{said}."


def noise_in_words(comparison: Comparison) -> list[str]:
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


def verdict_of(cell: Cell) -> str:
    """Whether a candidate's difference to the best is more than noise."""
    if cell.best:
        return "the best"
    if not math.isfinite(cell.mean):
        return "not a number"
    p = cell.p_value
    if p is None:
        return "unknown"
    return f"{'yes' if cell.beyond_noise else 'no'}, {f'p = {p:.2g}' if p >= 1e-4 else 'p < 0.0001'}"


def seeds_of(candidate: Candidate) -> str:
    """How many runs it has, in words."""
    return _counted(len(candidate.runs), "seed")


def written(value: float, kind: str) -> str:
    """A metric, as it is read."""
    if not math.isfinite(value):
        return "not finite"
    return f"{value:,.2f}" if kind == "perplexity" else f"{value:.4f}"


def difference_of(cell: Cell, kind: str) -> str:
    """To the best, with its sign; empty where there is none."""
    if cell.best or not math.isfinite(cell.difference):
        return ""
    return f"{'-' if cell.difference < 0 else '+'}{written(abs(cell.difference), kind)}"


def _runs_of(noise: Noise) -> str:
    settings, seeds = _counted(noise.n_settings, "setting"), _counted(noise.n_seeds, "seed")
    if len(noise.values) == noise.n_settings * noise.n_seeds:
        return f"{settings} \N{MULTIPLICATION SIGN} {seeds}"
    return f"{_counted(len(noise.values), 'run')} of {settings} with {seeds}"


def _counted(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
