"""Short, unique labels of runs."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from analysis.comparison.comparison import Comparison
from analysis.comparison.run import Run, RunState
from analysis.comparison.run_settings import SEED, shorten_setting_names

_LONGEST = 44  # characters in a legend


class RunLabel(NamedTuple):
    """Label of a run in a chart: its distinguishing settings, and its state unless it is done."""

    full: str
    short: str


def run_labels(comparison: Comparison) -> dict[str, RunLabel]:
    """Return the full and the short label of each run, by run name. If the shortened settings are not unique, the label
    is the run's name.

    Args:
        comparison: the compared runs.
    """
    apart = {run.name: _apart(comparison, run) for run in comparison.runs}
    own = {name: name for name in apart}
    full = {name: _joined(settings) for name, settings in apart.items()}
    heads = {name: _joined([(_head(key), value) for key, value in settings]) for name, settings in apart.items()}
    cut = [{name: shorten_setting_names(text, _LONGEST) for name, text in way.items()} for way in (full, own)]
    labels = {}
    for run in comparison.runs:
        said = _first([full, own], run.name, longest=None)
        fitting = _first([full, heads, *cut, own], run.name, longest=_LONGEST)
        state = "" if run.state is RunState.DONE else f" ({run.state})"
        labels[run.name] = RunLabel(said + state, fitting + state)
    return labels


def _first(ways: Sequence[Mapping[str, str]], name: str, *, longest: int | None) -> str:
    """The first of several labels that is not empty, short enough and unique; otherwise the name of the run."""
    for way in ways:
        text = way[name]
        if text and (longest is None or len(text) <= longest) and list(way.values()).count(text) == 1:
            return text
    return name


def _joined(settings: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{key}={value}" for key, value in settings)


def _apart(comparison: Comparison, run: Run) -> list[tuple[str, str]]:
    """The settings that distinguish a run, its seed last; empty if it is not compared or is labelled by its name."""
    named = comparison.named_settings(run) if run in comparison.comparable else []
    return [*named, *([(SEED, run.seed)] if named and SEED in comparison.differing else [])]


def _head(key: str) -> str:
    """The first part of a short name, which is unique."""
    first, dot, _ = key.partition(".")
    return f"{first}…" if dot else key
