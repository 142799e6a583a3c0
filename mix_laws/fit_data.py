"""What a law is fitted to, read from the runs of a sweep or from tables of other projects.

The shares are those that a run really drew, from its ledger, over all its steps: a curriculum that changes is taken for its
totals, which is all that a law knows of it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from analysis.comparison import Comparison, find_runs, read_runs
from analysis.comparison.run import Run
from analysis.comparison.run_settings import ABSENT, differing_settings, setting_text
from analysis.metrics_reader import LoggedMetrics
from mix_laws.csv_tables import CsvTable, is_folder_of_tables, read_csv_tables

_MIX = "curriculum."


@dataclass(frozen=True)
class MixRuns:
    """Runs that differ in their mix, and their seed, alone."""

    names: tuple[str, ...]
    sources: tuple[str, ...]
    validation: tuple[str, ...]
    ratios: np.ndarray  # (runs, sources)
    losses: np.ndarray  # (runs, validation), nats
    held_out: "MixRuns | None" = None
    """Runs that were set aside to be predicted."""
    sequences: dict[str, int] = field(default_factory=dict)
    """There are of each source to train on; empty: nobody says, so no epochs can be counted."""
    total: int = 0
    """Sequences that each run drew; 0: nobody says."""
    max_seq_len: int = 0
    left_out: tuple[str, ...] = ()
    """What is not among them, and why."""
    differences: tuple[str, ...] = ()
    """Beside the mix: of the surroundings, such as the git revision, what is not the same in all of them."""


def read_mix_runs(patterns: Any, *, held_out: Any = None) -> MixRuns:
    """The runs of a sweep, or the tables in a folder.

    Args:
        patterns: a folder with tables, or what `find_runs` takes.
        held_out: which of the runs are set aside to be predicted, as `find_runs` takes it; None: those that the tables say.

    Raises:
        ValueError: there are none, runs differ in more than their mix, or a table is not as it should be; with the place.
    """
    if isinstance(patterns, str) and is_folder_of_tables(Path(patterns)):
        if held_out is not None:
            raise ValueError(
                f"held_out={held_out} names runs, and mix_law={patterns} is a folder of tables: leave it out, and "
                "name the tables of what is held out test_…."
            )
        fitted, aside = read_csv_tables(Path(patterns))
        return _of_table(fitted, None if aside is None else _of_table(aside, None))
    paths = _found("mix_law", patterns, " A folder of CSV files will do too.")
    apart = {path.resolve() for path in _found("held_out", held_out)} if held_out is not None else set()
    if elsewhere := apart - {path.resolve() for path in paths}:
        raise ValueError(
            f"held_out={held_out} names {min(elsewhere)}, which is none of the runs of mix_law={patterns}."
        )
    comparison = Comparison(read_runs(paths))
    runs, left_out = [], []
    for run in comparison.runs:
        if run in comparison.ranked and all(map(math.isfinite, _losses(run).values())):
            runs.append(run)
        else:
            why = [*comparison.reasons.get(run.name, []), *([run.note] if run.note else [])]
            why += ["its loss is not finite"] if run in comparison.ranked else []
            left_out.append(f"{run.name}: {'; '.join(why) or run.state}")
    if not runs:
        first = f", the first as {left_out[0]}" if left_out else ""
        raise ValueError(f"none of the {len(comparison.runs)} runs of mix_law={patterns} is done and validated{first}.")
    differences = _differences(runs)
    fitted_runs, aside_runs = ([run for run in runs if (run.path.resolve() in apart) is side] for side in (False, True))
    if not fitted_runs or (apart and not aside_runs):
        what = "all of the" if not fitted_runs else "none of the"
        raise ValueError(
            f"held_out={held_out} names {what} {len(runs)} runs of mix_law={patterns} that are done: name some of them."
        )
    aside_mixes = _of_runs(aside_runs, [], []) if aside_runs else None
    return replace(_of_runs(fitted_runs, left_out, differences), held_out=aside_mixes)


def _found(setting: str, patterns: Any, more: str = "") -> list[Path]:
    try:
        return find_runs(patterns).runs
    except ValueError as error:
        raise ValueError(f"{setting}: {error}{more}".replace("runs=", "", 1)) from error


def _differences(runs: Sequence[Run]) -> list[str]:
    """In what else than their mix the runs differ: surroundings, which are told; settings, which are refused."""
    unlike_in = [key for key in differing_settings([run.deciding for run in runs]) if not key.startswith(_MIX)]
    settings = [key for key in unlike_in if any(key in run.settings for run in runs)]
    if settings:
        key = settings[0]
        values = sorted({setting_text(run.settings.get(key, ABSENT)) for run in runs})
        raise ValueError(
            f"the runs differ in {key} ({', '.join(values[:4])}) and not in their mix alone: name those of one value, "
            f"such as mix_law='{runs[0].path.parent}/*{key}={values[0]}*', or each of them in a list."
        )
    return unlike_in


def _of_runs(runs: Sequence[Run], left_out: Sequence[str], differences: Sequence[str]) -> MixRuns:
    drawn: list[list[float]] = []
    sizes: dict[str, int] = {}
    validation = [name for name in _losses(runs[0])]
    sources = list(runs[0].environment["data"])
    for run in runs:
        tokens, epochs = _ledger(run)
        drawn.append([tokens.get(source, 0.0) for source in sources])
        for source, passes in epochs.items():
            if passes > 0:  # a source of another run is the same, to the token
                sizes[source] = max(
                    sizes.get(source, 0), round(tokens[source] / passes / run.settings["model.max_seq_len"])
                )
    table = np.array(drawn)
    return MixRuns(
        names=tuple(run.name for run in runs),
        sources=tuple(sources),
        validation=tuple(validation),
        ratios=table / table.sum(axis=1, keepdims=True),
        losses=np.array([list(_losses(run).values()) for run in runs]),
        sequences={source: sizes[source] for source in sources} if set(sizes) == set(sources) else {},
        total=runs[0].steps * int(runs[0].settings["global_batch"]),
        max_seq_len=int(runs[0].settings["model.max_seq_len"]),
        left_out=tuple(left_out),
        differences=tuple(differences),
    )


def _ledger(run: Run) -> tuple[dict[str, float], dict[str, float]]:
    """(tokens drawn, epochs) of each source, at the end of the run."""
    metrics = LoggedMetrics.read(
        run.path / "metrics.jsonl", wanted=lambda key: key.startswith(("mix/tokens/", "mix/epochs/"))
    )
    steps, tokens = metrics.table(key for key in metrics.keys if key.startswith("mix/tokens/"))
    if len(drawn := steps[tokens.sum(axis=0) > 0]):
        row = metrics.at(int(drawn[-1]))
        tokens_of = {key.removeprefix("mix/tokens/"): row[key] for key in row if key.startswith("mix/tokens/")}
        return tokens_of, {source: row.get(f"mix/epochs/{source}", 0.0) for source in tokens_of}
    raise ValueError(
        f"{run.path / 'metrics.jsonl'} does not say what was drawn (mix/tokens/…): the run was trained without "
        "callbacks.mix_ledger, and cannot be used."
    )


def _losses(run: Run) -> dict[str, float]:
    """Of each source that was validated after the last step."""
    return {
        key.removeprefix("val/loss/"): value
        for key, value in run.final.items()
        if key.startswith("val/loss/") and key != "val/loss/mean"
    }


def _of_table(table: CsvTable, held_out: MixRuns | None) -> MixRuns:
    return MixRuns(table.names, table.sources, table.validation, table.ratios, table.losses, held_out)
