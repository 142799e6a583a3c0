"""Print the report of report.py mix_law=, and write its files."""

from pathlib import Path
from typing import Any

from rich.table import Table

from analysis.comparison import common_folder, find_runs
from gpt_lightning.console import Console
from mix_laws.best_mix_search import BestMix, find_best_mix
from mix_laws.curriculum_yaml import write_constant_mix
from mix_laws.fit_data import MixRuns, read_mix_runs
from mix_laws.fitted_mix_law import MixLaw, fit_mix_law
from mix_laws.mix_law_page import TableRows, errors_table, held_out_table, mixes_table, write_mix_law_page
from mix_laws.parse_search_target import parse_search_target
from mix_laws.simplex import weights_by_source
from mix_laws.verdict_text import best_mix_sentences, chosen_mix, law_sentences

_WIDTH = 130  # width in characters of tables that are written to a file


def write_and_print_mix_law(
    patterns: Any, held_out: Any, out_dir: Path | None, *, max_epochs: float | None, **search: Any
) -> None:
    """Write mix_law.html and curriculum/best_mix.yaml, and print a summary.

    Args:
        patterns: The runs or tables to fit, see `read_mix_runs`.
        held_out: The runs to hold out; None: the runs that the tables mark as held out.
        out_dir: Where to write the files; None: to the folder that contains the runs or tables.
        max_epochs: Limit for each source in the search for the best mix; None: no limit.
        search: Further settings of the search, see `parse_search_target`.

    Raises:
        ValueError: The runs do not exist, or runs or settings are unsuitable for a law.
    """
    runs = read_mix_runs(patterns, held_out=held_out)
    aim = parse_search_target(runs, max_epochs=max_epochs, **search)
    law = fit_mix_law(runs.ratios, runs.losses)
    best = find_best_mix(law, aim)
    folder = out_dir or _folder_of(patterns)
    sentences = [*law_sentences(law), *best_mix_sentences(best, law, runs.sources)]
    write_mix_law_page(runs, law, best, folder / "mix_law.html", title=f"Mix law of {len(runs.names)} runs")
    console = Console(soft_wrap=True)
    for said in runs.left_out:
        console.print(f"  excluded: {said}")
    if runs.differences:
        console.print(
            f"  warning: the runs differ not only in their mix, but also in {', '.join(runs.differences)}. The fit ignores this."
        )
    for rows in (errors_table(runs, law), held_out_table(runs, law), mixes_table(runs, law, best)):
        if rows:
            Console(width=_WIDTH).print(_right_aligned(rows), "")
    console.print("\n".join(sentences))
    path = _write_best_mix(folder, runs, law, best, sentences, max_epochs)
    console.print(f"page:        {folder / 'mix_law.html'}")
    console.print(f"curriculum:  {path}: python train.py --config-dir {folder} experiment=… curriculum=best_mix")


def _write_best_mix(
    folder: Path, runs: MixRuns, law: MixLaw, best: BestMix, remarks: list[str], max_epochs: float | None
) -> Path:
    weights = weights_by_source(runs.sources, chosen_mix(best, law), best.aim.caps)
    limit = max_epochs if runs.sequences else None
    return write_constant_mix(folder, "best_mix", weights, remarks=remarks, max_epochs=limit)


def _folder_of(patterns: Any) -> Path:
    """Return the default output folder: the one that contains the runs or tables."""
    if isinstance(patterns, str) and any(Path(patterns).glob("*.csv")):
        return Path(patterns)
    return common_folder(find_runs(patterns).runs)


def _right_aligned(rows: TableRows) -> Table:
    table = Table(*rows[0], box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    for row in rows[1:]:
        table.add_row(*row)
    return table
