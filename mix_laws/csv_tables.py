"""Read mixes and losses of runs from tables of other projects.

RegMix's (arXiv:2407.01492)   *mixture*.csv with a column of shares per source, and *loss*.csv with a column per
validation loss,
                              joined by `index`; of train_… and test_…, the second is held out
Olmix's (arXiv:2602.12237)    ratios.csv and metrics.csv, joined by `run` or `run_id`; the column `name` is only a label
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
_ENDS = 0.01  # tolerance for the sum of shares


@dataclass(frozen=True)
class CsvTable:
    """The runs in a pair of files."""

    names: tuple[str, ...]
    sources: tuple[str, ...]
    validation: tuple[str, ...]
    ratios: np.ndarray  # (runs, sources), each row summing to 1
    losses: np.ndarray  # (runs, validation), in nats


def is_folder_of_tables(folder: Path) -> bool:
    """Return whether a folder contains CSV files of mixes."""
    return folder.is_dir() and any(_MIXTURES.search(path.name.lower()) for path in folder.glob("*.csv"))


def read_csv_tables(folder: Path) -> tuple[CsvTable, CsvTable | None]:
    """Read the tables in a folder.

    Returns:
        (the runs to fit, the held-out runs or None)

    Raises:
        ValueError: Files cannot be paired, or a line is malformed; the message gives file and line.
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
                f"{mixture} has {len(losses) or 'no'} matching files of losses: it must have one in the same folder, "
                f"such as {of}{'_' * bool(of)}loss.csv or metrics.csv."
            )
        pairs[of] = mixture, losses[0]
    held_out = [of for of in pairs if of in _HELD_OUT and len(pairs) > 1]
    fitted = [of for of in pairs if of not in held_out]
    if len(fitted) != 1 or len(held_out) > 1:
        raise ValueError(
            f"{folder} has {len(pairs)} tables of mixes ({', '.join(pairs)}): it must have one to fit, and optionally "
            "one named test_…."
        )
    table = _read_pair(*pairs[fitted[0]])
    other = _read_pair(*pairs[held_out[0]]) if held_out else None
    if other is not None and (other.sources, other.validation) != (table.sources, table.validation):
        raise ValueError(
            f"{pairs[held_out[0]][0]} has other columns than {pairs[fitted[0]][0]}: they must be the same."
        )
    return table, other


def _set_of(path: Path, kind: re.Pattern[str]) -> str:
    """Return the set of runs that a file name starts with: `train` for train_pile_loss_1m.csv, none for ratios.csv."""
    before = kind.split(path.stem.lower())[0]
    return before.split("_")[0]


def _read_pair(mixture: Path, losses: Path) -> CsvTable:
    sources, mixes = _read(mixture)
    validation, results = _read(losses)
    if missing := [name for name in mixes if name not in results]:
        raise ValueError(f"{losses} lacks run {missing[0]}: it must have every run of {mixture}.")
    for name, (line, shares) in mixes.items():
        if min(shares) < 0 or abs(sum(shares) - 1) > _ENDS:
            raise ValueError(
                f"{mixture}, line {line}: the shares of run {name} sum to {sum(shares):.4g}: they must be 0 or more "
                "and sum to 1."
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
    """Read a file. Returns (names of the columns, run -> (line, numbers))."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            head, *lines = csv.reader(file)
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise ValueError(f"{path} is not a table of comma-separated values: {error}.") from error
    ids = [n for n, name in enumerate(head) if name in _IDS]
    if not ids:
        raise ValueError(
            f"{path}, line 1: it must have a column named {', '.join(_IDS[:-1])} or {_IDS[-1]}, which identifies the "
            "run of a row."
        )
    key = min(ids, key=lambda n: -_IDS.index(head[n]))
    columns = [n for n, name in enumerate(head) if name not in (*_IDS, *_LABELS)]
    rows: dict[str, tuple[int, list[float]]] = {}
    for line, cells in enumerate(lines, start=2):
        if not cells:
            continue
        if len(cells) != len(head):
            raise ValueError(
                f"{path}, line {line}: it has {len(cells)} cells: it must have {len(head)}, as the header line."
            )
        for n in columns:
            if not _is_number(cells[n]):
                raise ValueError(f"{path}, line {line}: {head[n]} is {cells[n]!r}: it must be a finite number.")
        if cells[key] in rows:
            raise ValueError(f"{path}, line {line}: run {cells[key]} already occurs in line {rows[cells[key]][0]}.")
        rows[cells[key]] = line, [float(cells[n]) for n in columns]
    if not rows or not columns:
        raise ValueError(
            f"{path} has {len(rows)} rows and {len(columns)} columns of numbers: it must have at least one of each."
        )
    return [head[n] for n in columns], rows


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _common_ends(names: list[str]) -> tuple[int, int]:
    """Return the lengths of the common prefix and suffix, in whole words, such as metric/the_pile_ and _val_loss."""
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
