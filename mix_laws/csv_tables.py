"""Mixes and losses of runs in tables of other projects.

RegMix's (arXiv:2407.01492)   *mixture*.csv with a column of shares for each source, *loss*.csv with one for each validation loss,
                              joined by `index`; of train_… and test_… the second is held out
Olmix's (arXiv:2602.12237)    ratios.csv and metrics.csv, joined by `run` or `run_id`; a column `name` only labels
"""

import csv
import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_IDS = ("index", "run", "run_id")
_LABELS = ("name",)
_MIXTURES, _LOSSES = re.compile(r"mixture|ratio"), re.compile(r"loss|metric")
_HELD_OUT = ("test", "val", "held_out")
_ENDS = 0.01


@dataclass(frozen=True)
class CsvTable:
    """The runs of two files."""

    names: tuple[str, ...]
    sources: tuple[str, ...]
    validation: tuple[str, ...]
    ratios: np.ndarray  # (runs, sources), each row summing to 1
    losses: np.ndarray  # (runs, validation)


def is_folder_of_tables(folder: Path) -> bool:
    """Whether there are CSV files of mixes in it."""
    return folder.is_dir() and any(_MIXTURES.search(path.name.lower()) for path in folder.glob("*.csv"))


def read_csv_tables(folder: Path) -> tuple[CsvTable, CsvTable | None]:
    """(the runs to fit, those that are held out if there are such).

    Raises:
        ValueError: files do not pair, or a line is not as it should be, with its place.
    """
    files = sorted(folder.glob("*.csv"))
    mixtures = [path for path in files if _MIXTURES.search(path.name.lower())]
    pairs: dict[str, tuple[Path, Path]] = {}
    for mixture in mixtures:
        of = _set_of(mixture, _MIXTURES)
        losses = [
            path
            for path in files
            if path not in mixtures and _LOSSES.search(path.name) and _set_of(path, _LOSSES) == of
        ]
        if len(losses) != 1 or of in pairs:
            raise ValueError(
                f"{mixture} needs one file of losses beside it, such as {of}{'_' * bool(of)}loss.csv or metrics.csv, and "
                f"{len(losses) or 'none'} is there."
            )
        pairs[of] = mixture, losses[0]
    held_out = [of for of in pairs if of in _HELD_OUT and len(pairs) > 1]
    fitted = [of for of in pairs if of not in held_out]
    if len(fitted) != 1 or len(held_out) > 1:
        raise ValueError(
            f"{folder} holds {len(pairs)} tables of mixes ({', '.join(pairs)}): leave one there, and one called test_…."
        )
    table = _read_pair(*pairs[fitted[0]])
    other = _read_pair(*pairs[held_out[0]]) if held_out else None
    if other is not None and (other.sources, other.validation) != (table.sources, table.validation):
        raise ValueError(f"{pairs[held_out[0]][0]} has other columns than {pairs[fitted[0]][0]}.")
    return table, other


def _set_of(path: Path, kind: re.Pattern[str]) -> str:
    """What of a set of runs a file's name says before its kind: train of train_pile_loss_1m.csv, nothing of ratios.csv."""
    before = kind.split(path.stem.lower())[0]
    return before.split("_")[0]


def _read_pair(mixture: Path, losses: Path) -> CsvTable:
    sources, mixes = _read(mixture)
    validation, results = _read(losses)
    if missing := [name for name in mixes if name not in results]:
        raise ValueError(f"{losses} has no row for run {missing[0]}, which {mixture} has.")
    for name, (line, shares) in mixes.items():
        if min(shares) < 0 or abs(sum(shares) - 1) > _ENDS:
            raise ValueError(
                f"{mixture}, line {line}: the shares of run {name} sum to {sum(shares):.4g}, and must be 0 or more and sum to 1."
            )
    ratios = np.array([shares for _, shares in mixes.values()])
    common = _common_ends(sources), _common_ends(validation)
    return CsvTable(
        tuple(mixes),
        tuple(_without_ends(sources, common[0])),
        tuple(_without_ends(validation, common[1])),
        ratios / ratios.sum(axis=1, keepdims=True),
        np.array([results[name][1] for name in mixes]),
    )


def _read(path: Path) -> tuple[list[str], dict[str, tuple[int, list[float]]]]:
    """(columns, run -> (line, numbers))."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            head, *lines = csv.reader(file)
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise ValueError(f"{path} is no table of comma-separated values: {error}.") from error
    ids = [n for n, name in enumerate(head) if name in _IDS]
    if not ids:
        raise ValueError(
            f"{path}, line 1: no column is called {', '.join(_IDS[:-1])} or {_IDS[-1]}, to say which run a row is of."
        )
    key = min(ids, key=lambda n: -_IDS.index(head[n]))
    columns = [n for n, name in enumerate(head) if name not in (*_IDS, *_LABELS)]
    rows: dict[str, tuple[int, list[float]]] = {}
    for line, cells in enumerate(lines, start=2):
        if not cells:
            continue
        if len(cells) != len(head):
            raise ValueError(f"{path}, line {line}: {len(cells)} cells, and the head has {len(head)}.")
        for n in columns:
            if not _is_number(cells[n]):
                raise ValueError(f"{path}, line {line}: {head[n]} is {cells[n]!r}, and must be a finite number.")
        if cells[key] in rows:
            raise ValueError(f"{path}, line {line}: run {cells[key]} stands in line {rows[cells[key]][0]} already.")
        rows[cells[key]] = line, [float(cells[n]) for n in columns]
    if not rows or not columns:
        raise ValueError(f"{path} has {len(rows)} rows and {len(columns)} columns of numbers: there is nothing to fit.")
    return [head[n] for n in columns], rows


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _common_ends(names: list[str]) -> tuple[int, int]:
    """How many characters all names begin and end with, in whole words: metric/the_pile_ and _val_loss are no names."""
    if len(names) < 2:
        return 0, 0
    words = [re.split(r"(?<=[_/])", name) for name in names]
    back = [re.split(r"(?=[_/])", name) for name in names]
    begin = end = 0
    while all(len(each) > begin + 1 and each[begin] == words[0][begin] for each in words):
        begin += 1
    while all(len(each) > end + 1 and each[-1 - end] == back[0][-1 - end] for each in back):
        end += 1
    return len("".join(words[0][:begin])), len("".join(back[0][len(back[0]) - end :]))


def _without_ends(names: list[str], ends: tuple[int, int]) -> list[str]:
    return [name[ends[0] : len(name) - ends[1]] or name for name in names]
