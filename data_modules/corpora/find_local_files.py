"""Find local files by path: as `datasets` reads a folder, with a report of what is skipped.

    hidden files and folders, __pycache__ and the like       skipped
    README.md, dataset_info.json, … that describe a dataset  skipped
    a folder written by save_to_disk                         only the files listed in its state.json
    a copy of a dataset whose card lists the files           only the files of one split
    names such as test/ or validation-00000-of-00001         only the files of the requested split

A file that the path names directly is always read; a pattern ending in .md includes README.md. A text file whose own
name sounds like a split (evaluation.md) is read if most text files have other names.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Callable
from glob import has_magic
from pathlib import Path, PurePosixPath

from data_modules.corpora.file_formats import COMPRESSIONS, FORMATS, WHOLE_TEXTS
from data_modules.corpora.splits_from_dataset_card import choose_config, files_by_split, read_card

_DESCRIPTIONS = (
    "README.md",
    "config.json",
    "dataset_info.json",
    "dataset_infos.json",
    "dataset_dict.json",
    "dummy_data.zip",
)  # files that `datasets` ignores in any folder
_SPLITS = {
    "train": {"train", "training"},
    "validation": {"validation", "valid", "dev", "val"},
    "test": {"test", "testing", "eval", "evaluation"},
}  # words that `datasets` recognises
_MOST_NAMED = 3  # maximum number of files listed in a message
_CACHE = "cache-"  # prefix of the files that Dataset.map leaves next to the data


def find_local_files(
    path: str,
    *,
    config: str | None = None,
    split: str | None = "train",
    tell: Callable[[str], object] = str,
) -> dict[str, str]:
    """List the files that a path means: the file itself, the files below a folder, or the files that match a pattern.

    Args:
        path: A file, a folder or a glob pattern.
        config: Configuration of the dataset, if the path is a copy of one; None: the only or the default one.
        split: The split to read; None: all splits.
        tell: Called with one line that counts the skipped files, if there are any.

    Returns:
        Name of each file -> its absolute path, in order.

    Raises:
        ValueError: There are no such files, or no file of the split.
    """
    held_out: list[str] = []
    root = Path(path).expanduser()
    if root.is_file():
        return {root.name: str(root.absolute())}
    passed_over: Counter[str] = Counter()
    if root.is_dir():
        below = _files_below(root, passed_over)
        names = _chosen(path, root, below, config, split)
        others = sorted(set(below).difference(names))
        passed_over.update(map(_kind_and_split, others))
        held_out = [name for name in others if suffixes(name)[0] in WHOLE_TEXTS and _split_of(name)]
        titled = sorted(name for name in _titled(below).intersection(names) if _split_of(name) != split)
        if titled and split:
            tell(f"{path}: read as ordinary texts, although their names look like a split: {_some(titled)}")
        found = {name: str((root / name).absolute()) for name in names}
    else:
        files = _matching(path, root, passed_over)
        whole = len({file.name for file in files}) < len(files)
        found = {file.as_posix() if whole else file.name: str(file.absolute()) for file in files}
        splits = Counter(_split_of(file.relative_to(_without_magic(root)).as_posix()) for file in files)
        if len(splits) > 1:
            said = ", ".join(f"{name or 'no split'} ({number:,})" for name, number in sorted(splits.items()))
            tell(f"{path}: files of several splits are read, because the path is a pattern: {said}")
    if passed_over:
        kinds = ", ".join(f"{kind} ({number:,})" for kind, number in sorted(passed_over.items()))
        how = f"; path='{path}/**/*{_kind(held_out[0])}' would also read {_some(held_out)}" if held_out else ""
        tell(f"{path}: {len(found):,} {'file is' if len(found) == 1 else 'files are'} read; skipped: {kinds}{how}")
    return found


def suffixes(name: str) -> tuple[str, str]:
    """Return (format, compression) from the end of a file's name, in lower case; the compression may be empty."""
    path = PurePosixPath(name.lower())
    if path.suffix in COMPRESSIONS:
        return PurePosixPath(path.stem).suffix, path.suffix
    return path.suffix, ""


def known_formats() -> str:
    """Return the supported file name suffixes, for a message."""
    *others, last = COMPRESSIONS
    return f"{' '.join(FORMATS)}, each also with {' '.join(others)} or {last}"


def _files_below(root: Path, passed_over: Counter[str]) -> list[str]:
    """List the files below a folder, in order, without hidden files and dataset descriptions."""
    names, seen = [], set()
    for folder, folders, files in os.walk(root, onerror=_refuse, followlinks=True):
        place = os.path.realpath(folder)
        if place in seen:  # a symbolic link leads here again
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
    """Return the label under which a file without data is counted; empty if the file may hold data."""
    if name in _DESCRIPTIONS or (saved is not None and name == "state.json"):
        return name
    if name.startswith(_CACHE) and name.endswith(".arrow"):
        return f"{_CACHE}*.arrow"
    return f"{_kind(name)} not listed in state.json" if saved is not None and name not in saved else ""


def _is_hidden(part: str, *, is_folder: bool) -> bool:
    return (part.startswith(".") and set(part) != {"."}) or (is_folder and part.startswith("__"))


def _saved_by_datasets(folder: Path, files: list[str]) -> set[str] | None:
    """Return the data files of a folder that save_to_disk wrote; None for other folders.

    Raises:
        ValueError: A data file is missing, or the description cannot be read.
    """
    if not {"state.json", "dataset_info.json"} <= set(files):
        return None
    path = folder / "state.json"
    try:
        named = {str(file["filename"]) for file in json.loads(path.read_bytes())["_data_files"]}
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is malformed: it must list the files of a saved dataset, as save_to_disk writes it."
        ) from error
    if missing := sorted(named.difference(files)):
        raise ValueError(f"{path} lists {missing[0]}, which does not exist: copy the whole folder.")
    return named


def _chosen(path: str, root: Path, below: list[str], config: str | None, split: str | None) -> list[str]:
    """Choose the files of a folder that are read.

    Raises:
        ValueError: There are none, the card cannot be read, or several configurations exist and none is chosen.
    """
    card = read_card(root) if split else None
    if card or (card is not None and config):
        try:
            chosen = choose_config(card, config)
            by_split = files_by_split(chosen, below)
        except ValueError as error:
            raise ValueError(
                f"path={path} {error}. To choose the files yourself, use a pattern such as path={path}/*.parquet."
            ) from error
        if by_split is not None:
            if not by_split.get(str(split)):
                raise ValueError(
                    f"path={path} has no files of the split {split}: its README.md lists "
                    f"{', '.join(by_split) or 'none'}. To choose the files yourself, use a pattern such as "
                    f"path={path}/*.parquet."
                )
            return by_split[str(split)]
        below = [name for name in below if PurePosixPath(name).is_relative_to(chosen.get("data_dir") or "")]
    known = [name for name in below if suffixes(name)[0] in FORMATS]
    if not known:
        raise ValueError(f"path={path} has no file of a supported format ({known_formats()}).")
    return _of_split(path, known, split)


def _of_split(path: str, names: list[str], split: str | None) -> list[str]:
    """Choose the files of one split by their names, as `datasets` does; if no name mentions it, those of no split."""
    by_split: dict[str, list[str]] = {}
    titled = _titled(names)
    for name in names:
        by_split.setdefault("" if name in titled else _split_of(name), []).append(name)
    if split is None or set(by_split) == {""}:
        return names
    wanted = _split_in(_words(split)) or "train"
    if set(by_split) == {"", wanted} and all(suffixes(name)[0] in WHOLE_TEXTS for name in by_split[wanted]):
        return names  # a text file may have such a name by chance
    chosen = by_split.get(wanted) or by_split.get("")
    if not chosen:
        raise ValueError(
            f"path={path} has no files of the split {wanted}, only of {', '.join(sorted(by_split))}. To choose "
            f"the files yourself, use a pattern such as path={path}/*.parquet."
        )
    return chosen


def _titled(names: list[str]) -> set[str]:
    """Return text files whose own names sound like a split, if most have other names, so that it is just a title."""
    texts = [name for name in names if suffixes(name)[0] in WHOLE_TEXTS]
    plain = [name for name in texts if not _split_of(name)]
    titled = {name for name in texts if _split_of(name) and not _split_of(f"{PurePosixPath(name).parent}/a.txt")}
    return titled if len(plain) > len(titled) else set()


def _some(names: list[str]) -> str:
    """List names for a message; only the first few if there are many."""
    return ", ".join(names[:_MOST_NAMED]) + (f" and {len(names) - _MOST_NAMED} more" if names[_MOST_NAMED:] else "")


def _split_of(name: str) -> str:
    """Return the split that a file's path indicates, nearest folder first; empty if none."""
    ending, compression = suffixes(name)
    path = PurePosixPath(name.lower())
    for part in (*reversed(path.parent.parts), path.name.removesuffix(compression).removesuffix(ending)):
        words = _words(part)
        if split := _split_in(words[-1:] if ending in WHOLE_TEXTS else words):  # in a title, only the last word counts
            return split
    return ""


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[-._ 0-9]+", name.lower()) if word not in ("", "of")]


def _split_in(words: list[str]) -> str:
    return next((split for split, meant in _SPLITS.items() if meant & set(words)), "")


def _matching(path: str, pattern: Path, passed_over: Counter[str]) -> list[Path]:
    """List the files that match a pattern, in order, without hidden files and descriptions that it does not name
    explicitly.

    Raises:
        ValueError: No file matches.
    """
    files = []
    for file in sorted(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor)))):
        if not file.is_file():
            continue
        spelled = pattern.name == file.name or pattern.name.startswith(_CACHE)
        spelled |= file.suffix == pattern.suffix == ".md"  # README.md is a text if the pattern asks for .md files
        hidden = _hidden_parts(file) != _hidden_parts(pattern)
        if kind := "hidden files" if hidden else "" if spelled else _no_data(file.name, None):
            passed_over[kind] += 1
        else:
            files.append(file)
    if not files:
        raise ValueError(f"path={path} does not exist: it must be a file, a folder or a pattern that matches files.")
    return files


def _without_magic(pattern: Path) -> Path:
    """Return the longest folder at the start of a pattern that contains no wildcard."""
    return next(folder for folder in pattern.parents if not has_magic(str(folder)))


def _hidden_parts(path: Path) -> int:
    return sum(_is_hidden(part, is_folder=True) for part in path.parent.parts) + _is_hidden(path.name, is_folder=False)


def _kind(name: str) -> str:
    """Return the label under which a file is counted: the end of its name."""
    ending = "".join(suffixes(name))
    return ending if re.fullmatch(r"(\.\w{1,12}){1,2}", ending) else "other files"


def _kind_and_split(name: str) -> str:
    if suffixes(name)[0] not in FORMATS:
        return _kind(name)
    split = _split_of(name)
    return f"{_kind(name)} of {f'the split {split}' if split else 'no split'}"
