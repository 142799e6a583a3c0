"""What runs are called where there is little room: never two of them the same."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from analysis.comparison.comparison import Comparison
from analysis.comparison.run import Run, RunState
from analysis.comparison.run_settings import SEED, shorten_setting_names

_LONGEST = 44  # characters in a legend


class RunLabel(NamedTuple):
    """Of a run in a chart: what sets it apart, and its state where that is not that it is done."""

    full: str
    short: str


def run_labels(comparison: Comparison) -> dict[str, RunLabel]:
    """By name of the run; a label is that name where the settings in short would be another run's too."""
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
    """The first of some ways to call a run that says something, is short enough and calls no other run the same; or its name."""
    for way in ways:
        text = way[name]
        if text and (longest is None or len(text) <= longest) and list(way.values()).count(text) == 1:
            return text
    return name


def _joined(settings: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{key}={value}" for key, value in settings)


def _apart(comparison: Comparison, run: Run) -> list[tuple[str, str]]:
    """The settings that set a run apart, its seed last; none where it is not compared, or is called by its own name."""
    named = comparison.named_settings(run) if run in comparison.comparable else []
    return [*named, *([(SEED, run.seed)] if named and SEED in comparison.differing else [])]


def _head(key: str) -> str:
    """The first part of a short name, which is what no other has."""
    first, dot, _ = key.partition(".")
    return f"{first}…" if dot else key
