"""Which runs may be compared, in what their settings differ, and how they rank."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from analysis.comparison.noise import Noise, pooled_noise
from analysis.comparison.reading import Run, State

KINDS = ("loss", "perplexity", "bits_per_byte")
"""Of validation, as in `val/<kind>/<source>`."""
ABSENT = "—"
"""A setting that a run does not have."""
_MOST_NAMED = 3  # settings in a name


@dataclass(frozen=True)
class Basis:
    """What runs must have in common for their losses to compare."""

    tokenizer: str
    sources: Mapping[str, str]  # fingerprint of each one's tokens
    validated: tuple[Any, Any]  # sequences of each source, and their length where only some of them are scored
    tokens: int
    steps: int

    @staticmethod
    def of(run: Run) -> "Basis":
        """Of a run whose settings could be read."""
        some = run.settings.get("data.val_sequences")
        return Basis(
            tokenizer=run.environment["tokenizer"],
            sources={name: data["fingerprint"] for name, data in sorted(run.environment["data"].items())},
            validated=(some, some and run.settings["model.max_seq_len"]),
            tokens=run.steps * run.tokens_per_step,
            steps=run.steps,
        )

    def differences(self, other: "Basis") -> list[str]:
        """Why runs of this basis must not be compared with those of another, in words; empty: they may."""
        reasons = []
        if self.tokenizer != other.tokenizer:
            reasons.append("other tokenizer")
        else:  # another tokenizer makes all data other
            mine, theirs = self.sources, other.sources
            unequal = [name for name in sorted({*mine, *theirs}) if mine.get(name) != theirs.get(name)]
            if unequal:
                reasons.append(f"other validation data ({', '.join(unequal)})")
            if self.validated != other.validated:
                reasons.append(f"other validation data ({_validated(self)}, not {_validated(other)})")
        if self.tokens != other.tokens:
            reasons.append(f"other token budget ({millions(self.tokens)}, not {millions(other.tokens)})")
        if self.steps != other.steps:
            reasons.append(f"other schedule length ({self.steps:,} steps, not {other.steps:,})")
        return reasons


@dataclass(frozen=True)
class Cell:
    """One metric of one candidate."""

    mean: float  # over its runs
    difference: float  # to the best; not finite where the mean is not
    best: bool
    p_value: float | None  # of the difference; None: the noise is unknown, or there is nothing to compare
    beyond_noise: bool | None


@dataclass(frozen=True)
class Candidate:
    """Runs that differ in nothing but their seed."""

    name: str
    runs: tuple[Run, ...]  # each with a seed of its own

    def values(self, key: str) -> list[float]:
        """The final metric of each run."""
        return [run.final.get(key, math.nan) for run in self.runs]


class Comparison:
    """Runs beside each other.

    Args:
        runs: as `read_runs` gives them.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = tuple(runs)
        readable = [run for run in runs if run.settings]
        bases = {run.name: Basis.of(run) for run in readable}
        self.reference: Basis | None = _most_common(readable, bases)
        """That of the runs which are compared: of most of those that are done."""
        self.reasons: dict[str, list[str]] = {
            run.name: bases[run.name].differences(self.reference) for run in readable if self.reference is not None
        }
        """Of each run that could be read, why it is not compared; empty: it is."""

    @cached_property
    def comparable(self) -> list[Run]:
        """The runs that may be compared, unfinished ones among them."""
        broken = (State.BROKEN, State.MISSING)
        return [run for run in self.runs if run.state not in broken and not self.reasons.get(run.name, ["unread"])]

    @cached_property
    def ranked(self) -> list[Run]:
        """Those of them that are done and were validated at their end."""
        return [run for run in self.comparable if "val/loss/mean" in run.final]

    @cached_property
    def differing(self) -> list[str]:
        """The settings that are not the same in all comparable runs, and what of their environment is not; watchers' last."""
        shown = [described(run) for run in self.comparable]
        keys = dict.fromkeys(key for settings in shown for key in settings)
        unlike = [key for key in keys if len({text_of(settings.get(key, ABSENT)) for settings in shown}) > 1]
        return sorted(unlike, key=lambda key: key.startswith("callbacks."))

    @cached_property
    def short_names(self) -> dict[str, str]:
        """The shortest end of each differing setting's dotted name that no other one has."""
        return {key: _shortest(key, self.differing) for key in self.differing}

    @cached_property
    def candidates(self) -> list[Candidate]:
        """The ranked runs, those together that differ in nothing but their seed; of the same seed only the first."""
        groups: dict[str, dict[Any, Run]] = {}
        for run in self.ranked:
            seeds = groups.setdefault(text_of(without(run.settings, {"seed"})), {})
            seeds.setdefault(run.settings.get("seed"), run)
        return [Candidate(self.name_of(next(iter(g.values()))), tuple(g.values())) for g in groups.values()]

    def name_of(self, run: Run) -> str:
        """A run's settings in short, but for its seed; its own name where that would be long, or say nothing."""
        keys = [key for key in self.differing if key in run.settings and key != "seed"]
        if not 0 < len(keys) <= _MOST_NAMED:
            return run.name
        return ", ".join(f"{self.short_names[key]}={shortened(text_of(run.settings[key]), 24)}" for key in keys)

    @cached_property
    def sources(self) -> list[str]:
        """Those that were validated, with their mean first."""
        first = self.ranked[0].final if self.ranked else {}
        names = [key.removeprefix("val/loss/") for key in first if key.startswith("val/loss/")]
        return ["mean", *(name for name in names if name != "mean")]

    def noise(self, key: str) -> Noise | None:
        """Between seeds, of a final metric; None: no two runs differ in their seed alone."""
        finite = ([value for value in group.values(key) if math.isfinite(value)] for group in self.candidates)
        return pooled_noise(group for group in finite if group)

    def column(self, key: str) -> list[Cell]:
        """A final metric of each candidate, the lowest being the best."""
        means = [math.fsum(values) / len(values) for values in (group.values(key) for group in self.candidates)]
        finite = [mean for mean in means if math.isfinite(mean)]
        if not finite:
            return [Cell(mean, math.nan, False, None, None) for mean in means]
        best, noise = means.index(min(finite)), self.noise(key)
        cells = []
        for n, mean in enumerate(means):
            sizes = len(self.candidates[n].runs), len(self.candidates[best].runs)
            known = noise is not None and n != best and math.isfinite(mean)
            p_value = noise.p_value(mean - means[best], *sizes) if known and noise else None
            beyond = noise.exceeded_by(mean - means[best], *sizes) if known and noise else None
            cells.append(Cell(mean, mean - means[best], n == best, p_value, beyond))
        return cells

    @cached_property
    def twins(self) -> dict[str, str]:
        """Runs with the settings and the seed of another one, by name: they say nothing new."""
        first: dict[str, str] = {}
        named = ((run.name, text_of(run.settings)) for run in self.ranked)
        return {name: first[settings] for name, settings in named if first.setdefault(settings, name) != name}


def described(run: Run) -> dict[str, Any]:
    """A run's settings, and those of its surroundings that its results may depend on."""
    environment = run.environment
    git, versions = environment.get("git"), environment.get("versions")
    around: dict[str, Any] = {
        "device": environment.get("device"),
        "weights at the start": environment.get("initial_weights"),
    }
    around |= {"git revision": str(git["revision"])[:10]} if isinstance(git, Mapping) and "revision" in git else {}
    around |= {
        f"version of {name}": version for name, version in (versions.items() if isinstance(versions, dict) else ())
    }
    return {**run.settings, **around}


def without(settings: Mapping[str, Any], keys: set[str]) -> dict[str, Any]:
    """The other settings."""
    return {key: value for key, value in settings.items() if key not in keys}


def text_of(value: Any) -> str:
    """A setting as it is read and compared."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.6g}" if float(f"{value:.6g}") == value else repr(value)
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def shortened(text: str, most: int) -> str:
    """At most so many characters of it."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def millions(tokens: float) -> str:
    """A number of tokens, as it is said."""
    for unit, size in (("billion", 1e9), ("million", 1e6)):
        if tokens >= size:
            return f"{tokens / size:,.4g} {unit} tokens"
    return f"{tokens:,.0f} tokens"


def _most_common(runs: Sequence[Run], bases: Mapping[str, Basis]) -> Basis | None:
    """The basis of most runs, those that are done counting first; of equally many, the one that comes first."""
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


def _shortest(key: str, others: Sequence[str]) -> str:
    parts = key.split(".")
    ends = (".".join(parts[n:]) for n in range(len(parts) - 1, -1, -1))
    return next(end for end in ends if sum(f".{other}".endswith(f".{end}") for other in others) == 1)
