"""Check a prepared source against its source.json. Every byte is read, in constant memory and in several threads."""

import hashlib
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_modules.shards.shard_files import ShardFile, files_of_source, unlisted_files

MIB = 1 << 20
_AT_ONCE = 64 * MIB  # bytes that a thread checks at a time
_NAMED = 3  # maximum number of damages listed in a message


class Checksums:
    """Compute the sha256 of a file and the crc32 of each MiB. All pieces except the last must be whole MiB."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._crc32_per_mib: list[str] = []

    def update(self, content: bytes) -> None:
        self._sha256.update(content)
        whole = memoryview(content)
        self._crc32_per_mib += (_crc32(whole[start : start + MIB]) for start in range(0, len(whole), MIB))

    @property
    def values(self) -> dict[str, str]:
        """The checksums, by name as in source.json."""
        return {"sha256": self._sha256.hexdigest(), "crc32_per_mib": "".join(self._crc32_per_mib)}


class _Piece(NamedTuple):
    """A range of bytes of a file."""

    file: ShardFile
    start: int
    stop: int


class _Found(NamedTuple):
    """Damage found in a piece."""

    damaged: list[tuple[int, int]]
    """[start, stop) of damaged ranges of the file, in bytes, in order."""
    unreadable: str | None
    """Why the last range cannot be read; None if it can be read."""
    stranger: tuple[int, int] | None
    """(first id that the tokenizer does not have, position of this id in the file in bytes); None if there is no such
    id.
    """


class DataChangedError(Exception):
    """Files of a run's data have changed since the run was started."""

    exit_code = os.EX_NOINPUT


def find_damage(folder: Path, information: Mapping[str, Any], *, with_sha256: bool) -> list[str]:
    """Find damage in the shards of a source.

    Args:
        folder: The source's folder.
        information: The content of its source.json.
        with_sha256: Also compare sha256. crc32 finds and locates all accidental damage in less than half the time. The
            sha256 of a file without crc32 is always compared.

    Returns:
        One clause per damaged file, with the file and the bytes.
    """
    clauses = find_source_damage(files_of_source(folder, information), information, with_sha256=with_sha256)
    return clauses + [f"{path} is not in source.json" for path in unlisted_files(folder, information)]


def find_source_damage(files: Sequence[ShardFile], information: Mapping[str, Any], *, with_sha256: bool) -> list[str]:
    """As `find_damage`, for some of a source's files."""
    misfits = {file: misfit for file in files if (misfit := file.misfit())}
    pieces = [piece for file in files if file not in misfits for piece in _pieces(file, with_sha256)]
    name, n_ids = information["tokenizer"]["name"], information["tokenizer"]["vocab_size"]
    found: dict[ShardFile, list[_Found]] = {file: [] for file in files}
    with ThreadPoolExecutor() as pool:
        answers = pool.map(lambda piece: _compare(piece, n_ids, with_sha256), pieces)
        for piece, answer in zip(pieces, answers, strict=True):
            found[piece.file].append(answer)
    clauses = [misfits.get(file) or _clause(file, found[file], f"tokenizer {name} has {n_ids:,} ids") for file in files]
    return [clause for clause in clauses if clause]


def damage_message(folder: Path, found: Sequence[str]) -> str:
    """Return a message that lists the damage and says what to do."""
    more = f"; and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return f"{'; '.join(found[:_NAMED])}{more}. Restore the files, or delete {folder} and prepare it again"


def _pieces(file: ShardFile, with_sha256: bool) -> Iterator[_Piece]:
    size = file.end - file.first_byte
    at_once = size if with_sha256 or file.crc32_per_mib is None else _AT_ONCE
    for start in range(file.first_byte, file.end, at_once):
        yield _Piece(file, start, min(start + at_once, file.end))


def _compare(piece: _Piece, n_ids: int, with_sha256: bool) -> _Found:
    file, stranger = piece.file, None
    damaged: list[tuple[int, int]] = []
    sha256 = hashlib.sha256() if with_sha256 or file.crc32_per_mib is None else None
    buffer = memoryview(bytearray(MIB))
    with file.path.open("rb") as stream:
        stream.seek(piece.start)
        for start in range(piece.start, piece.stop, MIB):
            block = buffer[: min(MIB, piece.stop - start)]
            try:
                stream.readinto(block)
            except OSError as error:
                return _Found([*damaged, (start, start + len(block))], error.strerror, stranger)
            if sha256:
                sha256.update(block)
            if file.crc32_per_mib is not None:
                nth = (start - file.first_byte) // MIB
                if _crc32(block) != file.crc32_per_mib[8 * nth : 8 * nth + 8]:
                    damaged.append((start, start + len(block)))
            if not file.masks and not stranger:
                stranger = _stranger(file, start, block, n_ids)
    if sha256 and not damaged and sha256.hexdigest() != file.sha256:
        damaged = [(piece.start, piece.stop)]
    return _Found(damaged, None, stranger)


def _stranger(file: ShardFile, start: int, block: memoryview, n_ids: int) -> tuple[int, int] | None:
    header = max(0, file.offset - start)
    ids = np.frombuffer(block[header:], file.dtype)
    if not len(ids) or int(ids.max()) < n_ids:
        return None
    first = int(np.argmax(ids >= n_ids))
    return int(ids[first]), start + header + first * file.dtype.itemsize


def _clause(file: ShardFile, found: Sequence[_Found], tokenizer: str) -> str:
    """Return a clause that describes the damage of a file; empty if there is none."""
    damaged = [bytes_ for piece in found for bytes_ in piece.damaged]
    clause = []
    if damaged:
        last = next((n for n, (this, after) in enumerate(pairwise(damaged)) if this[1] != after[0]), len(damaged) - 1)
        reason = next((piece.unreadable for piece in found if piece.damaged), None)
        what = f"cannot be read ({reason})" if reason else "differs from source.json"
        others = len(damaged) - last - 1
        clause.append(
            f"{what} between bytes {damaged[0][0]:,} and {damaged[last][1]:,}"
            + f" and in {others} later MiB" * bool(others)
        )
    if stranger := next((piece.stranger for piece in found if piece.stranger), None):
        clause.append(f"has the id {stranger[0]} at byte {stranger[1]:,}, but {tokenizer}")
    return f"{file.path} {', and '.join(clause)}" if clause else ""


def _crc32(block: bytes | memoryview) -> str:
    return f"{zlib.crc32(block):08x}"
