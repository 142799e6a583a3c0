"""Read the data to fit a law to, from the runs of a sweep or from tables of other projects.

The shares are the shares that a run really drew over all its steps, as the run's mix ledger counted them. If the
curriculum changes during a run, only the totals count, because a law does not depend on the order.
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
    """Runs that differ only in their mix and their seed."""

    names: tuple[str, ...]
    sources: tuple[str, ...]
    validation: tuple[str, ...]
    ratios: np.ndarray  # (runs, sources)
    losses: np.ndarray  # (runs, validation), nats
    held_out: "MixRuns | None" = None
    """Runs set aside to test predictions."""
    sequences: dict[str, int] = field(default_factory=dict)
    """Source -> number of its training sequences; empty: unknown, so that epochs cannot be computed."""
    total: int = 0
    """Number of sequences that each run drew; 0: unknown."""
    max_seq_len: int = 0
    left_out: tuple[str, ...] = ()
    """Runs that are excluded, each with the reason."""
    differences: tuple[str, ...] = ()
    """What differs between the runs besides mix and seed, such as the git revision."""


def read_mix_runs(patterns: Any, *, held_out: Any = None) -> MixRuns:
    """Read the runs of a sweep, or the tables in a folder.

    Args:
        patterns: A folder with tables, or anything that `find_runs` takes.
        held_out: Runs to set aside to test predictions, as `find_runs` takes them; None: the runs that the tables mark.

    Raises:
        ValueError: There are no runs, they differ in more than their mix, or a table is malformed; the message gives
            the place.
    """
    if isinstance(patterns, str) and is_folder_of_tables(Path(patterns)):
        if held_out is not None:
            raise ValueError(
                f"held_out is {held_out}: it must be null if mix_law is a folder of tables, {patterns}. Name the "
                "held-out tables test_…."
            )
        fitted, aside = read_csv_tables(Path(patterns))
        return _of_table(fitted, None if aside is None else _of_table(aside, None))
    paths = _found("mix_law", patterns, " Alternatively, use a folder of CSV files.")
    apart = {path.resolve() for path in _found("held_out", held_out)} if held_out is not None else set()
    if elsewhere := apart - {path.resolve() for path in paths}:
        raise ValueError(
            f"held_out={held_out} includes {min(elsewhere)}: it must include only runs of mix_law={patterns}."
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
        first = f"; the first: {left_out[0]}" if left_out else ""
        raise ValueError(
            f"mix_law={patterns} has {len(comparison.runs)} runs: at least one must be complete and validated{first}."
        )
    differences = _differences(runs)
    fitted_runs, aside_runs = ([run for run in runs if (run.path.resolve() in apart) is side] for side in (False, True))
    if not fitted_runs or (apart and not aside_runs):
        what = "all" if not fitted_runs else "none"
        raise ValueError(
            f"held_out={held_out} includes {what} of the {len(runs)} complete runs of mix_law={patterns}: it must "
            "include some."
        )
    aside_mixes = _of_runs(aside_runs, [], []) if aside_runs else None
    return replace(_of_runs(fitted_runs, left_out, differences), held_out=aside_mixes)


def _found(setting: str, patterns: Any, more: str = "") -> list[Path]:
    try:
        return find_runs(patterns).runs
    except ValueError as error:
        raise ValueError(f"{setting}: {error}{more}".replace("runs=", "", 1)) from error


def _differences(runs: Sequence[Run]) -> list[str]:
    """Return what differs besides the mix, such as the git revision. Raises ValueError if settings differ."""
    unlike_in = [key for key in differing_settings([run.deciding for run in runs]) if not key.startswith(_MIX)]
    settings = [key for key in unlike_in if any(key in run.settings for run in runs)]
    if settings:
        key = settings[0]
        values = sorted({setting_text(run.settings.get(key, ABSENT)) for run in runs})
        raise ValueError(
            f"the runs differ in {key} ({', '.join(values[:4])}): they must differ only in their mix. Choose the "
            f"runs with a single value of {key}, for example mix_law='{runs[0].path.parent}/*{key}={values[0]}*', or list "
            "the runs."
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
            if passes > 0:  # the same source in another run has the same size
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
    """Return (tokens drawn, epochs) of each source at the end of the run."""
    metrics = LoggedMetrics.read(
        run.path / "metrics.jsonl", wanted=lambda key: key.startswith(("mix/tokens/", "mix/epochs/"))
    )
    steps, tokens = metrics.table(key for key in metrics.keys if key.startswith("mix/tokens/"))
    if len(drawn := steps[tokens.sum(axis=0) > 0]):
        row = metrics.at(int(drawn[-1]))
        tokens_of = {key.removeprefix("mix/tokens/"): row[key] for key in row if key.startswith("mix/tokens/")}
        return tokens_of, {source: row.get(f"mix/epochs/{source}", 0.0) for source in tokens_of}
    raise ValueError(
        f"{run.path / 'metrics.jsonl'} lacks the drawn tokens (mix/tokens/…), because the run was trained without "
        "callbacks.mix_ledger: it cannot be used."
    )


def _losses(run: Run) -> dict[str, float]:
    """Return the loss of each source in the validation after the last step."""
    return {
        key.removeprefix("val/loss/"): value
        for key, value in run.final.items()
        if key.startswith("val/loss/") and key != "val/loss/mean"
    }


def _of_table(table: CsvTable, held_out: MixRuns | None) -> MixRuns:
    return MixRuns(table.names, table.sources, table.validation, table.ratios, table.losses, held_out)
