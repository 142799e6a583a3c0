"""Which runs can be compared, which settings differ between the runs, and how the runs rank."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from analysis.comparison.metric_result import (
    SIGNIFICANCE_BY_TEST,
    MetricResult,
    Significance,
    significance_of_lowest,
)
from analysis.comparison.run import Run, RunState
from analysis.comparison.run_settings import SEED, differing_settings, setting_text, short_names, shorten_setting_names
from analysis.comparison.tukey_test import AdditiveNoiseModel

METRIC_KINDS = ("loss", "perplexity", "bits_per_byte")
"""Kinds of validation metrics, as in `val/<kind>/<source>`."""
_MOST_NAMED = 3  # settings in a name
_SEED_IN_NAME = re.compile(r",?\bseed=[^,/]*")  # in the name of a sweep's job
_LONGEST = 60  # characters of a setting in a name


@dataclass(frozen=True)
class Basis:
    """What runs must have in common so that their losses are comparable."""

    tokenizer: str
    sources: Mapping[str, str]  # source -> fingerprint of its tokens
    validated: tuple[Any, Any]  # validation sequences per source, and their length if only some are scored
    tokens: int
    steps: int

    @staticmethod
    def of(run: Run) -> "Basis":
        """The basis of a run whose settings could be read."""
        some = run.settings.get("data.val_sequences")
        return Basis(
            tokenizer=run.environment["tokenizer"],
            sources={name: data["fingerprint"] for name, data in sorted(run.environment["data"].items())},
            validated=(some, some and run.settings["model.max_seq_len"]),
            tokens=run.steps * run.tokens_per_step,
            steps=run.steps,
        )

    def differences(self, other: "Basis") -> list[str]:
        """Why runs of this basis are not comparable with runs of another basis, as phrases; empty if they are
        comparable.

        Args:
            other: the basis of other runs.
        """
        reasons = []
        if self.tokenizer != other.tokenizer:
            reasons.append("different tokenizer")
        else:  # with another tokenizer, all data differ
            mine, theirs = self.sources, other.sources
            unequal = [name for name in sorted({*mine, *theirs}) if mine.get(name) != theirs.get(name)]
            if unequal:
                reasons.append(f"different validation data ({', '.join(unequal)})")
            if self.validated != other.validated:
                reasons.append(f"different validation data ({_validated(self)}, not {_validated(other)})")
        if self.tokens != other.tokens:
            reasons.append(
                f"different token budget ({format_millions(self.tokens)}, not {format_millions(other.tokens)})"
            )
        if self.steps != other.steps:
            reasons.append(f"different schedule length ({self.steps:,} steps, not {other.steps:,})")
        return reasons


@dataclass(frozen=True)
class Candidate:
    """Runs whose settings differ only in the seed, apart from settings that do not change results."""

    name: str
    runs: tuple[Run, ...]  # each with a different seed

    def values(self, key: str) -> list[float]:
        """The final value of a metric in each run."""
        return [run.final.get(key, math.nan) for run in self.runs]


class Comparison:
    """A comparison of runs.

    Args:
        runs: the runs, as returned by `read_runs`.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = tuple(runs)
        readable = [run for run in runs if run.settings]
        bases = {run.name: Basis.of(run) for run in readable}
        self.reference: Basis | None = _most_common(readable, bases)
        """The basis of the compared runs: that of most finished runs."""
        self.reasons: dict[str, list[str]] = {
            run.name: bases[run.name].differences(self.reference) for run in readable if self.reference is not None
        }
        """Name of a readable run -> why the run is not compared; empty if it is compared."""
        self._noises: dict[str, AdditiveNoiseModel | None] = {}

    @cached_property
    def comparable(self) -> list[Run]:
        """The runs that are compared, including unfinished ones."""
        broken = (RunState.BROKEN, RunState.MISSING)
        return [run for run in self.runs if run.state not in broken and not self.reasons.get(run.name, ["unread"])]

    @cached_property
    def ranked(self) -> list[Run]:
        """Compared runs that are finished and were validated at the end."""
        return [run for run in self.comparable if "val/loss/mean" in run.final]

    @cached_property
    def differing(self) -> list[str]:
        """Settings and environment values that differ between compared runs.

        Settings that do not change results come last.
        """
        decide = {SEED, *self.deciding}
        return sorted(differing_settings([run.described for run in self.comparable]), key=lambda key: key not in decide)

    @cached_property
    def deciding(self) -> list[str]:
        """The differing settings that change the result of a run, without the seed."""
        return differing_settings([run.deciding for run in self.comparable])

    @cached_property
    def short_names(self) -> dict[str, str]:
        """Differing setting -> the shortest unique suffix of the dotted name."""
        return short_names(self.differing)

    @cached_property
    def candidates(self) -> list[Candidate]:
        """The ranked runs, grouped by settings without the seed. Of runs with the same seed, only the first counts."""
        groups: dict[str, dict[str, Run]] = {}
        for run in self.ranked:
            groups.setdefault(_identity(run), {}).setdefault(run.seed, run)
        names = self._names([next(iter(runs.values())) for runs in groups.values()])
        return [
            Candidate(name if names.count(name) == 1 else next(iter(runs.values())).name, tuple(runs.values()))
            for name, runs in zip(names, groups.values(), strict=True)
        ]

    def _names(self, runs: Sequence[Run]) -> list[str]:
        """Names of candidates, from the first run of each: from settings, or from folder names without the seed."""
        folders = [_SEED_IN_NAME.sub("", run.name) for run in runs]
        if not all(map(self.named_settings, runs)) and all(folders) and len({*folders}) == len(folders):
            return folders
        return [self.name_of(run) for run in runs]

    def named_settings(self, run: Run) -> list[tuple[str, str]]:
        """(short name, value) of the settings that distinguish a run, without its seed; empty if there are too many.

        Args:
            run: one of the compared runs.
        """
        keys = [key for key in self.deciding if key in run.described]
        if not 0 < len(keys) <= _MOST_NAMED:
            return []
        return [
            (self.short_names.get(key, key), shorten_setting_names(setting_text(run.described[key]), _LONGEST))
            for key in keys
        ]

    def name_of(self, run: Run) -> str:
        """A run's distinguishing settings as text, without its seed; the run's name if there are too many or none."""
        return ", ".join(f"{key}={value}" for key, value in self.named_settings(run)) or run.name

    @cached_property
    def sources(self) -> list[str]:
        """The validated sources, with "mean" first."""
        first = self.ranked[0].final if self.ranked else {}
        names = [key.removeprefix("val/loss/") for key in first if key.startswith("val/loss/")]
        return ["mean", *(name for name in names if name != "mean")]

    def noise(self, key: str) -> AdditiveNoiseModel | None:
        """The noise model of a metric's final values, over candidates with a finite mean; None if there is none.

        Args:
            key: key of the metric, `val/<kind>/<source>`.
        """
        if key not in self._noises:
            groups = [group for group in self.candidates if math.isfinite(_mean(group.values(key)))]
            rows = [
                (value, n, run.seed)
                for n, g in enumerate(groups)
                for value, run in zip(g.values(key), g.runs, strict=True)
            ]
            self._noises[key] = AdditiveNoiseModel(*zip(*rows, strict=True)) if rows else None
        return self._noises[key]

    def seed_effects(self, key: str) -> dict[str, float]:
        """Name of a run -> effect of the run's seed on a final metric; empty if the effects of seeds cannot be
        estimated.

        Args:
            key: key of the metric, `val/<kind>/<source>`.
        """
        noise = self.noise(key)
        if noise is None or not noise.connected:
            return {}
        runs = [run for group in self.candidates if math.isfinite(_mean(group.values(key))) for run in group.runs]
        return {run.name: float(effect) for run, effect in zip(runs, noise.of_seeds, strict=True)}

    def column(self, key: str) -> list[MetricResult]:
        """A final metric of each candidate, its difference to the lowest candidate, and the significance of this
        difference.

        Each mean is over the candidate's runs. Differences, p-values and the lowest candidate come from the additive
        model, because with unequal seeds the candidate with the lowest mean may have the lowest mean only because of
        its seeds. In balanced designs, the differences are the differences of the means. A perplexity grows with its
        loss. Therefore the loss is tested, and a difference of perplexities is the difference of the mean perplexities.

        Args:
            key: key of the metric, `val/<kind>/<source>`.
        """
        tested = key.replace("val/perplexity/", "val/loss/")
        means = [_mean(group.values(key)) for group in self.candidates]
        deviations = [_deviation(group.values(key)) for group in self.candidates]
        levels = [_mean(group.values(tested)) for group in self.candidates]
        finite = [n for n, level in enumerate(levels) if math.isfinite(level)]
        noise = self.noise(tested)
        if noise is None:
            return [MetricResult(mean, None, math.nan, False, Significance.NOT_FINITE, None) for mean in means]
        least = min(range(len(finite)), key=lambda n: levels[finite[n]])
        to_least = [noise.difference(n, least).value for n in range(len(finite))]
        lowest = min((n for n, value in enumerate(to_least) if math.isfinite(value)), key=lambda n: to_least[n])
        chances = {place: noise.difference(n, lowest) for n, place in enumerate(finite) if n != lowest}
        cells = []
        for n, (mean, deviation) in enumerate(zip(means, deviations, strict=True)):
            if n == finite[lowest]:
                cells.append(
                    MetricResult(mean, deviation, 0.0, True, significance_of_lowest(list(chances.values())), None)
                )
            elif n in chances:
                chance = chances[n]
                plain = mean - means[finite[lowest]] if math.isfinite(chance.value) else math.nan
                difference = chance.value if tested == key else plain
                cells.append(
                    MetricResult(mean, deviation, difference, False, SIGNIFICANCE_BY_TEST[chance.beyond_noise], chance)
                )
            else:
                cells.append(MetricResult(mean, deviation, math.inf, False, Significance.NOT_FINITE, None))
        return cells

    @cached_property
    def twins(self) -> dict[str, str]:
        """Name of a run -> name of an earlier run with the same settings and seed."""
        first: dict[str, str] = {}
        named = ((run.name, f"{run.seed} {_identity(run)}") for run in self.ranked)
        return {name: first[identity] for name, identity in named if first.setdefault(identity, name) != name}


def _identity(run: Run) -> str:
    """A key that is the same for runs with the same settings, apart from the seed."""
    return setting_text({key: setting_text(value) for key, value in run.deciding.items()})


def _mean(values: Sequence[float]) -> float:
    return sum(value / len(values) for value in values)


def _deviation(values: Sequence[float]) -> float | None:
    """Standard deviation of values that may be too large to be squared; None if it is undefined."""
    largest = max(map(abs, values))
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return None
    return largest * float(np.std(np.divide(values, largest or 1.0), ddof=1))


def format_millions(tokens: float) -> str:
    """A number of tokens as text."""
    for unit, size in (("billion", 1e9), ("million", 1e6)):
        if tokens >= size:
            return f"{tokens / size:,.4g} {unit} tokens"
    return f"{tokens:,.0f} tokens"


def _most_common(runs: Sequence[Run], bases: Mapping[str, Basis]) -> Basis | None:
    """The basis of most runs. Finished runs count first; ties go to the earliest run."""
    if not runs:
        return None
    keys = {run.name: repr(bases[run.name]) for run in runs}
    done = Counter(keys[run.name] for run in runs if "val/loss/mean" in run.final)
    every = Counter(keys.values())
    best = max(runs, key=lambda run: (done[keys[run.name]], every[keys[run.name]]))
    return bases[best.name]


def _validated(basis: Basis) -> str:
    some, length = basis.validated
    return f"{some} sequences of {length} tokens of each source" if some else "all sequences"
