"""Shards of other projects, read in place: nothing is copied, and source.json lists the files.

    nanogpt    flat .bin of uint16 ids, train.bin and val.bin
    llmc       .bin with a header of 256 int32: 20240520, 1, number of tokens; then uint16 ids
    gpt2_5     one flat .bin of uint16 ids
    rangeflow  a folder of one-dimensional uint16 .npy

Files with "val" in their names are for validation; without such files, the last documents are. Files with "train" in
their names are for training; without such files, all others are, except those with "test" or "dev" in their names.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_modules.corpora.token_file_check import recognize_by_neighbours, recognize_by_values, recognize_other_format
from data_modules.shards.shard_integrity import MIB, Checksums
from gpt_lightning.tokenizer import Tokenizer

_DTYPE = np.dtype("<u2")
_AT_ONCE = 32 * MIB // _DTYPE.itemsize  # tokens
_NAMED = 5  # maximum number of files listed in a message


class ForeignSplits(NamedTuple):
    """The splits of another project's shards."""

    entries: dict[str, tuple[dict[str, Any], np.ndarray]]
    """Split -> (entry of the split in source.json, number of occurrences of each id as (vocab_size,) int64)."""
    left_out: list[Path]
    """Files that belong to neither split."""
    remarks: list[str]
    """Remarks for the user, one sentence each."""


class ForeignFile(NamedTuple):
    """A file of token ids."""

    path: Path
    offset: int  # number of bytes before the first id
    tokens: int


def _flat(path: Path) -> ForeignFile:
    if what := recognize_other_format(path):
        raise ValueError(f"{path} is {what}: it must be a flat file of uint16 ids.")
    size = path.stat().st_size
    if size % _DTYPE.itemsize or not size:
        raise ValueError(
            f"{path} has {size:,} bytes: its size must be a positive, even number of bytes, because ids are uint16. The "
            "file is damaged or has another format."
        )
    return ForeignFile(path, 0, size // _DTYPE.itemsize)


def _llmc(path: Path) -> ForeignFile:
    header = np.fromfile(path, dtype="<i4", count=256)
    if len(header) < 256 or header[0] != 20240520 or header[1] != 1:
        what = (
            f"It is {kind}." if (kind := recognize_other_format(path)) else "For flat files of ids, use format=nanogpt."
        )
        raise ValueError(
            f"{path} lacks llm.c's header: it must start with 256 int32 (20240520, 1, number of tokens, …). {what}"
        )
    tokens, there = int(header[2]), (path.stat().st_size - header.nbytes) / _DTYPE.itemsize
    if there == 2 * tokens > 0:
        raise ValueError(f"{path} holds 4-byte integers: it must hold uint16 ids. {_ANEW}.")
    if tokens != there:
        raise ValueError(
            f"{path} has {there:,.1f} tokens by its size: it must have {tokens:,}, as its header says. It is cut off "
            "or damaged."
        )
    return ForeignFile(path, header.nbytes, tokens)


def _npy(path: Path) -> ForeignFile:
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is damaged or not a .npy file of numbers.") from error
    if not isinstance(values, np.memmap):  # an archive of several arrays, whose file is still open
        values.close()
        raise ValueError(f"{path} is not a .npy file of numbers.")
    if values.ndim != 1 or values.dtype != _DTYPE:
        raise ValueError(
            f"{path} holds {values.ndim}-dimensional {values.dtype}: it must hold one-dimensional uint16 ids."
        )
    return ForeignFile(path, values.offset, len(values))


_ANEW = "Convert it to 2-byte ids, for example with numpy's ids.astype('<u2')"
_FORMATS: dict[str, tuple[str, Callable[[Path], ForeignFile]]] = {
    "nanogpt": ("*.bin", _flat),
    "llmc": ("*.bin", _llmc),
    "gpt2_5": ("*.bin", _flat),
    "rangeflow": ("*.npy", _npy),
}


def foreign_splits(path: Path, format: str, tokenizer: Tokenizer, val_fraction: float) -> ForeignSplits:
    """Describe the splits of another project's shards. Each shard is read once, to check and count the ids.

    Args:
        path: A shard, or the folder that contains the shards.
        format: nanogpt, llmc, gpt2_5 or rangeflow.
        tokenizer: The tokenizer that the shards were made with.
        val_fraction: Share of the tokens used for validation if no file name marks validation data.

    Raises:
        ValueError: The format is unknown, there is no file, a file is damaged or of another format, or the tokenizer
            does not have an id.
    """
    if format not in _FORMATS:
        raise ValueError(f"format is {format}: it must be one of {', '.join(_FORMATS)}.")
    pattern, read = _FORMATS[format]
    paths = [path] if path.is_file() else sorted(file for file in path.glob(pattern) if _is_shown(file))
    if not paths:
        raise ValueError(f"{path} has no {pattern} files, which format={format} needs: check path and format.")
    if what := recognize_by_neighbours(paths[0].parent):
        raise ValueError(f"{paths[0].parent}: {what}.")
    by_name = _by_name(paths)
    train, val = ([_checked(read(file.resolve()), tokenizer) for file in by_name[split]] for split in ("train", "val"))
    if not val:
        train, val = _cut_tail(train, val_fraction, tokenizer.eot_id)
    if not train or not val:
        raise ValueError(
            f"{path} must have ids for training and for validation: files with val in their names are for validation, "
            f"or, without such files, the last val_fraction={val_fraction} of all ids{_left_out(by_name['neither'])}."
        )
    entries = {"train": _entry(train, tokenizer), "val": _entry(val, tokenizer)}
    return ForeignSplits(entries, by_name["neither"], list(_remarks(by_name, entries["train"][1], tokenizer)))


def _is_shown(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".")


def _by_name(paths: list[Path]) -> dict[str, list[Path]]:
    """Assign files to train, val or neither by their names."""
    said = {
        split: [path for path in paths if re.search(rf"(^|[_.-])({names})([_.\d-]|$)", path.stem, re.IGNORECASE)]
        for split, names in {"val": "val|valid|validation", "train": "train|training", "neither": "test|dev"}.items()
    }
    val = said["val"]
    train = [path for path in said["train"] or paths if path not in val and path not in said["neither"]]
    return {"train": train, "val": val, "neither": [path for path in paths if path not in train and path not in val]}


def _checked(file: ForeignFile, tokenizer: Tokenizer) -> ForeignFile:
    if not file.tokens:
        raise ValueError(f"{file.path} is empty: it must hold at least one id.")
    if what := recognize_by_values(file.path, file.offset, tokenizer.vocab_size):
        raise ValueError(f"{file.path} holds {what}: it must hold uint16 ids. {_ANEW}.")
    return file


def _remarks(by_name: dict[str, list[Path]], counts: np.ndarray, tokenizer: Tokenizer) -> Iterator[str]:
    if by_name["neither"]:
        yield _left_out(by_name["neither"]).removeprefix("; ")
    train = by_name["train"]
    if len({re.sub(r"\d+", "0", path.stem) for path in train}) > 1 and not any("train" in path.stem for path in train):
        yield f"no file has train in its name, so training uses: {_names(train)}"
    if not counts[tokenizer.eot_id]:
        yield (
            f"no document ends: the end-of-text id {tokenizer.eot_id} of tokenizer {tokenizer.name} does not occur in "
            f"the training data, whose highest id is {np.flatnonzero(counts)[-1]}. If the data was made with another "
            "tokenizer, choose that one"
        )


def _left_out(paths: list[Path]) -> str:
    verb = "is" if len(paths) == 1 else "are"
    return f"; {_names(paths)} {verb} skipped, because the name indicates neither train nor val" if paths else ""


def _names(paths: list[Path]) -> str:
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return ", ".join(path.name for path in paths[:_NAMED]) + more


def _cut_tail(
    files: list[ForeignFile], val_fraction: float, eot_id: int
) -> tuple[list[ForeignFile], list[ForeignFile]]:
    """Split off the last `val_fraction` of the tokens, at the next end of a document if there is one."""
    cut = int(sum(file.tokens for file in files) * (1 - val_fraction))
    train, val = [], []
    for file in files:
        if cut >= file.tokens:
            train.append(file)
        elif cut <= 0:
            val.append(file)
        else:
            ends = np.flatnonzero(_ids(file, cut, file.tokens) == eot_id)
            here = cut + int(ends[0]) + 1 if len(ends) else cut
            if here == file.tokens and file is files[-1]:
                here = cut
            train.append(file._replace(tokens=here))
            if here < file.tokens:
                val.append(ForeignFile(file.path, file.offset + here * _DTYPE.itemsize, file.tokens - here))
        cut -= file.tokens
    return train, val


def _entry(files: list[ForeignFile], tokenizer: Tokenizer) -> tuple[dict[str, Any], np.ndarray]:
    counts = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    shards = []
    for file in files:
        checksums = Checksums()
        for start, ids in _pieces(file):
            if ids.max() >= tokenizer.vocab_size:
                first = start + int(np.argmax(ids >= tokenizer.vocab_size))
                raise ValueError(
                    f"{file.path} has the id {_ids(file, first, first + 1)[0]} at token {first:,} (byte "
                    f"{file.offset + first * _DTYPE.itemsize:,}): ids must be below {tokenizer.vocab_size:,}, the "
                    f"vocab_size of tokenizer {tokenizer.name}. Choose the tokenizer that the file was made with."
                )
            counts += np.bincount(ids, minlength=tokenizer.vocab_size)
            checksums.update(ids.tobytes())
        place = {"file": str(file.path), "offset": file.offset, "dtype": _DTYPE.name}
        shards.append({"tokens": file.tokens, **place, **{key: {"ids": v} for key, v in checksums.values.items()}})
    entry = {
        "documents": int(counts[tokenizer.eot_id]),
        "tokens": int(counts.sum()),
        "loss_bearing_tokens": int(counts.sum()),
        "bytes": int(counts @ np.array(tokenizer.bytes_per_id())),
        "dtype": _DTYPE.name,
        "masked": False,
        "shards": shards,
    }
    return entry, counts


def _pieces(file: ForeignFile) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, file.tokens, _AT_ONCE):
        yield start, _ids(file, start, min(start + _AT_ONCE, file.tokens))


def _ids(file: ForeignFile, start: int, stop: int) -> np.ndarray:
    return np.fromfile(file.path, _DTYPE, count=stop - start, offset=file.offset + start * _DTYPE.itemsize)
