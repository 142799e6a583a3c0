"""Which files on this machine a path means: what `datasets` would read of a folder, and what is passed over.

    hidden files and folders, __pycache__ and the like       not read
    README.md, dataset_info.json, … that describe a dataset  not read
    a folder written by save_to_disk                         the files that its state.json names
    a copy of a dataset whose card names its files           those of one split
    names such as test/ or validation-00000-of-00001         only those of the split that is asked for

A file that the path names itself is read, whatever it is called; a pattern of .md names README.md. A text whose own name sounds
like a split (evaluation.md) is read where more texts have other names.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from glob import has_magic
from pathlib import Path, PurePosixPath
from typing import Any

from data_modules.corpora.dataset_card import choose_config, files_by_split, read_card
from data_modules.corpora.file_formats import COMPRESSIONS, FORMATS, WHOLE_TEXTS

_DESCRIPTIONS = (
    "README.md",
    "config.json",
    "dataset_info.json",
    "dataset_infos.json",
    "dataset_dict.json",
    "dummy_data.zip",
)  # what `datasets` ignores, wherever it lies
_SPLITS = {
    "train": {"train", "training"},
    "validation": {"validation", "valid", "dev", "val"},
    "test": {"test", "testing", "eval", "evaluation"},
}  # the words by which `datasets` knows them
_MOST_NAMED = 3  # files in a sentence
_CACHE = "cache-"  # how the names of the files begin that Dataset.map leaves beside the data


def find_local_files(
    path: str,
    *,
    hub: Mapping[str, Any] | None = None,
    split: str | None = "train",
    tell: Callable[[str], object] = str,
) -> dict[str, str]:
    """The files that a path means: itself, those below a folder, or those that match a pattern; by name, in order.

    Args:
        hub: id, config and split of the dataset that a folder may be a copy of.
        split: the one to read where there is no `hub`; None: all of them.
        tell: called with one line that counts what was passed over, if anything was.

    Returns:
        name of each file -> its absolute path.

    Raises:
        ValueError: there are none, or none of the split.
    """
    held_out: list[str] = []
    root = Path(path).expanduser()
    if root.is_file():
        return {root.name: str(root.absolute())}
    passed_over: Counter[str] = Counter()
    if root.is_dir():
        below = _files_below(root, passed_over)
        wanted = hub["split"] if hub else split
        names = _chosen(path, root, below, hub, wanted)
        others = sorted(set(below).difference(names))
        passed_over.update(map(_kind_and_split, others))
        held_out = [name for name in others if suffixes(name)[0] in WHOLE_TEXTS and _split_of(name)]
        titled = sorted(name for name in _titled(below).intersection(names) if _split_of(name) != wanted)
        if titled and wanted:
            tell(f"{path}: read as texts among others, and not as a split: {_some(titled)}")
        found = {name: str((root / name).absolute()) for name in names}
    else:
        files = _matching(path, root, passed_over)
        whole = len({file.name for file in files}) < len(files)
        found = {file.as_posix() if whole else file.name: str(file.absolute()) for file in files}
        splits = Counter(_split_of(file.relative_to(_without_magic(root)).as_posix()) for file in files)
        if len(splits) > 1:
            said = ", ".join(f"{name or 'no split'} ({number:,})" for name, number in sorted(splits.items()))
            tell(f"{path}: the files of all splits are read, as a pattern names the files themselves: {said}")
    if passed_over:
        kinds = ", ".join(f"{kind} ({number:,})" for kind, number in sorted(passed_over.items()))
        how = f"; path='{path}/**/*{_kind(held_out[0])}' reads {_some(held_out)} too" if held_out else ""
        tell(f"{path}: {len(found):,} {'file is' if len(found) == 1 else 'files are'} read; passed over: {kinds}{how}")
    return found


def suffixes(name: str) -> tuple[str, str]:
    """(format, compression) as a file's name ends, in small letters; the compression may be none."""
    path = PurePosixPath(name.lower())
    if path.suffix in COMPRESSIONS:
        return PurePosixPath(path.stem).suffix, path.suffix
    return path.suffix, ""


def known_formats() -> str:
    """The endings of the names of files that are read."""
    *others, last = COMPRESSIONS
    return f"{' '.join(FORMATS)}, each also with {' '.join(others)} or {last}"


def _files_below(root: Path, passed_over: Counter[str]) -> list[str]:
    """The names of the files below a folder, in order, without what is hidden or describes the others."""
    names, seen = [], set()
    for folder, folders, files in os.walk(root, onerror=_refuse, followlinks=True):
        place = os.path.realpath(folder)
        if place in seen:  # a link leads here a second time
            folders.clear()
            continue
        seen.add(place)
        hidden = {name for name in folders if _is_hidden(name, is_folder=True)}
        if hidden:
            passed_over["hidden folders"] += len(hidden)
        folders[:] = sorted(set(folders) - hidden)
        saved = _saved_by_datasets(Path(folder), files)
        for name in files:
            kind = "hidden files" if _is_hidden(name, is_folder=False) else _no_data(name, saved)
            if kind or not Path(folder, name).is_file():
                passed_over[kind or "broken links and devices"] += 1
            else:
                names.append(PurePosixPath(Path(folder, name).relative_to(root)))
    return [name.as_posix() for name in sorted(names)]


def _refuse(error: OSError) -> None:
    raise ValueError(f"{error.filename} cannot be read: {error.strerror}.") from error


def _no_data(name: str, saved: set[str] | None) -> str:
    """Why a file of a folder holds no data, as it is counted; empty if nothing speaks against it."""
    if name in _DESCRIPTIONS or (saved is not None and name == "state.json"):
        return name
    if name.startswith(_CACHE) and name.endswith(".arrow"):
        return f"{_CACHE}*.arrow"
    return f"{_kind(name)} that state.json does not name" if saved is not None and name not in saved else ""


def _is_hidden(part: str, *, is_folder: bool) -> bool:
    return (part.startswith(".") and set(part) != {"."}) or (is_folder and part.startswith("__"))


def _saved_by_datasets(folder: Path, files: list[str]) -> set[str] | None:
    """The data files of a folder that save_to_disk has written; None: it is none of those.

    Raises:
        ValueError: one is missing, or its description cannot be read.
    """
    if not {"state.json", "dataset_info.json"} <= set(files):
        return None
    path = folder / "state.json"
    try:
        named = {str(file["filename"]) for file in json.loads(path.read_bytes())["_data_files"]}
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise ValueError(f"{path} does not name the files of a saved dataset, as save_to_disk writes it.") from error
    if missing := sorted(named.difference(files)):
        raise ValueError(f"{path} names {missing[0]}, which is not there: copy the whole folder.")
    return named


def _chosen(path: str, root: Path, below: list[str], hub: Mapping[str, Any] | None, split: str | None) -> list[str]:
    """The files of a folder that are read.

    Raises:
        ValueError: there are none, its card cannot be read, or which of its configurations is meant is not said.
    """
    card = read_card(root) if split else None
    if card or (card is not None and hub and hub["config"]):
        try:
            config = choose_config(card, hub["config"] if hub else None)
            by_split = files_by_split(config, below)
        except ValueError as error:
            raise ValueError(f"path={path} {error}. A pattern names the files themselves: path={path}/….") from error
        if by_split is not None:
            if not by_split.get(str(split)):
                raise ValueError(
                    f"path={path} has no files of the split {split}; its README.md names {', '.join(by_split) or 'none'}. "
                    f"A pattern names the files themselves: path={path}/…."
                )
            return by_split[str(split)]
        below = [name for name in below if PurePosixPath(name).is_relative_to(config.get("data_dir") or "")]
    known = [name for name in below if suffixes(name)[0] in FORMATS]
    if not known:
        raise ValueError(f"path={path} holds no file of a known format ({known_formats()}).")
    return _of_split(path, known, split)


def _of_split(path: str, names: list[str], split: str | None) -> list[str]:
    """The files of one split as `datasets` knows it by their names; where no name speaks of it, those of no split."""
    by_split: dict[str, list[str]] = {}
    titled = _titled(names)
    for name in names:
        by_split.setdefault("" if name in titled else _split_of(name), []).append(name)
    if split is None or set(by_split) == {""}:
        return names
    wanted = _split_in(_words(split)) or "train"
    if set(by_split) == {"", wanted} and all(suffixes(name)[0] in WHOLE_TEXTS for name in by_split[wanted]):
        return names  # a text among others may be called so
    chosen = by_split.get(wanted) or by_split.get("")
    if not chosen:
        raise ValueError(
            f"path={path} has no files of the split {wanted}, only of {', '.join(sorted(by_split))}. A pattern names the files "
            f"themselves: path={path}/…."
        )
    return chosen


def _titled(names: list[str]) -> set[str]:
    """The whole texts whose own names sound like a split, where more of them have other names: there it is a title."""
    texts = [name for name in names if suffixes(name)[0] in WHOLE_TEXTS]
    plain = [name for name in texts if not _split_of(name)]
    titled = {name for name in texts if _split_of(name) and not _split_of(f"{PurePosixPath(name).parent}/a.txt")}
    return titled if len(plain) > len(titled) else set()


def _some(names: list[str]) -> str:
    """Names in a sentence; of many the first."""
    return ", ".join(names[:_MOST_NAMED]) + (f" and {len(names) - _MOST_NAMED} more" if names[_MOST_NAMED:] else "")


def _split_of(name: str) -> str:
    """The split that a file's name below its folder tells of, the nearest folder first; empty: none."""
    ending, compression = suffixes(name)
    path = PurePosixPath(name.lower())
    for part in (*reversed(path.parent.parts), path.name.removesuffix(compression).removesuffix(ending)):
        words = _words(part)
        if split := _split_in(words[-1:] if ending in WHOLE_TEXTS else words):  # of a title only the last word counts
            return split
    return ""


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[-._ 0-9]+", name.lower()) if word not in ("", "of")]


def _split_in(words: list[str]) -> str:
    return next((split for split, meant in _SPLITS.items() if meant & set(words)), "")


def _matching(path: str, pattern: Path, passed_over: Counter[str]) -> list[Path]:
    """The files that match a pattern, in order, without those that are hidden or describe others and that it does not spell.

    Raises:
        ValueError: there are none.
    """
    files = []
    for file in sorted(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor)))):
        if not file.is_file():
            continue
        spelled = pattern.name == file.name or pattern.name.startswith(_CACHE)
        spelled |= file.suffix == pattern.suffix == ".md"  # README.md is a text where texts of its kind are asked for
        hidden = _hidden_parts(file) != _hidden_parts(pattern)
        if kind := "hidden files" if hidden else "" if spelled else _no_data(file.name, None):
            passed_over[kind] += 1
        else:
            files.append(file)
    if not files:
        raise ValueError(f"path={path}: there is no such file, folder or pattern.")
    return files


def _without_magic(pattern: Path) -> Path:
    """The folder that a pattern begins with."""
    return next(folder for folder in pattern.parents if not has_magic(str(folder)))


def _hidden_parts(path: Path) -> int:
    return sum(_is_hidden(part, is_folder=True) for part in path.parent.parts) + _is_hidden(path.name, is_folder=False)


def _kind(name: str) -> str:
    """How a file is counted: by the end of its name."""
    ending = "".join(suffixes(name))
    return ending if re.fullmatch(r"(\.\w{1,12}){1,2}", ending) else "other files"


def _kind_and_split(name: str) -> str:
    if suffixes(name)[0] not in FORMATS:
        return _kind(name)
    split = _split_of(name)
    return f"{_kind(name)} of {f'the split {split}' if split else 'no split'}"
