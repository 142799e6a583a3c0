"""The files of a prepared source, as its source.json describes them.

Of each shard of a split it says:

    tokens                 how many
    sha256                 of each file, by its name, the whole of it: what the source's fingerprint is made of
    crc32_per_mib          of each file, by its name: the crc32 of every 2^20 bytes in turn, the last ones maybe fewer, in 8 hex
                           digits each; they say where a file is damaged, and are read faster than sha256
    file, offset, dtype    of a shard that others made: where it lies, the bytes before its first id, and what an id is;
                           its checksums are of the ids alone, by the name "ids", and its MiB are counted from the first of them

and of itself `sha256_of_the_rest`, see `with_checksum`. Sources from before crc32_per_mib have neither.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HEADER_BYTES = 128  # what numpy writes before a one-dimensional array
_SEAL = "sha256_of_the_rest"
_DTYPES = ("uint16", "uint32")


@dataclass(frozen=True)
class ShardFile:
    """Tokens or masks that lie in one file, one behind the other."""

    path: Path
    masks: bool
    """Not ids, but whether each token bears loss."""
    dtype: np.dtype
    tokens: int
    offset: int
    """Bytes before the first of them."""
    first_byte: int
    """Where the checksums begin."""
    sha256: str
    crc32_per_mib: str | None
    of_others: bool

    @property
    def end(self) -> int:
        """Bytes up to the end of the last token."""
        return self.offset + self.tokens * self.dtype.itemsize

    def open(self) -> np.ndarray:
        """The values, (tokens,), mapped into memory."""
        values = np.memmap(self.path, dtype=self.dtype, mode="r", offset=self.offset, shape=(self.tokens,))
        return values.view(np.ndarray)  # as it is a memmap no longer, a slice of it costs a tenth

    @property
    def state(self) -> str:
        """Size, time of the last change in nanoseconds, and inode: while they stay the same, so does the content."""
        try:
            found = self.path.stat()
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        return f"{found.st_size} {found.st_mtime_ns} {found.st_ino}"

    def misfit(self) -> str | None:
        """Why it cannot hold these tokens, if it cannot; others may have written more behind theirs."""
        if not self.path.is_file():
            return f"{self.path} is missing"
        size = self.path.stat().st_size
        torn = (size - self.offset) % self.dtype.itemsize
        if size == self.end or (self.of_others and size > self.end and not torn):
            return None
        return f"{self.path} ends at byte {size:,}{', inside an id,' * bool(torn)} and should end at byte {self.end:,}"


def files_of_split(folder: Path, entry: Mapping[str, Any]) -> Iterator[ShardFile]:
    """The files of one split; `folder` is that of the split, `entry` what source.json says of it.

    Raises:
        ValueError: it describes what no preparation made: a name that leads out of the folder, or ids that are no numbers.
    """
    for shard in entry["shards"]:
        for name, sha256 in shard["sha256"].items():
            of_others, masks = "file" in shard, name.startswith("mask")
            offset = shard["offset"] if of_others else HEADER_BYTES
            if Path(name).name != name:
                raise ValueError(f"it names {name}, which lies outside of its folder")
            if (dtype := shard.get("dtype", entry["dtype"])) not in _DTYPES:  # an object would be a pointer into memory
                raise ValueError(f"its ids are {dtype!r}, and must be {' or '.join(_DTYPES)}")
            for number in (shard["tokens"], offset):
                if not isinstance(number, int) or number < 0:
                    raise ValueError(f"it counts {number!r} tokens or bytes")
            yield ShardFile(
                path=Path(shard["file"]) if of_others else folder / name,
                masks=masks,
                dtype=np.dtype(np.bool_ if masks else dtype),
                tokens=shard["tokens"],
                offset=offset,
                first_byte=offset if of_others else 0,
                sha256=sha256,
                crc32_per_mib=shard.get("crc32_per_mib", {}).get(name),
                of_others=of_others,
            )


def files_of_source(folder: Path, information: Mapping[str, Any]) -> list[ShardFile]:
    """All files of a source, training first."""
    return [file for split, entry in information["splits"].items() for file in files_of_split(folder / split, entry)]


def unlisted_files(folder: Path, information: Mapping[str, Any]) -> list[Path]:
    """Shards that lie where a source's do, and that its source.json does not know."""
    files, origin = files_of_source(folder, information), information["origin"]
    there = set(folder.rglob("*.npy"))
    if "format" in origin and Path(origin["path"]).is_dir():
        suffixes = {file.path.suffix for file in files}
        left_out = origin.get("left_out", [])  # it is known, and no shard
        beside = (path for path in Path(origin["path"]).iterdir() if path.name not in left_out and path.name[0] != ".")
        there |= {path.resolve() for path in beside if path.suffix in suffixes}
    return sorted(there - {file.path for file in files})


def read_source_json(folder: Path) -> dict[str, Any]:
    """What the source.json of a folder says.

    Raises:
        ValueError: there is none, it is damaged, or it describes what no preparation made.
    """
    path = folder / "source.json"
    if not path.is_file():
        tokenizer, data_dir = folder.parent.name, folder.parent.parent
        elsewhere = "" if data_dir == Path("data") else f" data_dir={data_dir}"
        raise ValueError(
            f"{folder} holds no prepared source: "
            f"run python prepare.py source={folder.name} tokenizer={tokenizer}{elsewhere}."
        )
    try:
        information: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): delete {folder} and prepare it again.") from error
    try:
        files_of_source(folder, information)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise ValueError(f"{path} describes no source ({what}): delete {folder} and prepare it again.") from error
    if information.get(_SEAL) not in (None, _sha256_of_the_rest(information)):
        raise ValueError(
            f"{path} is not what it was when it was written: delete {folder} and prepare it again, or, if you changed it "
            f"yourself, take {_SEAL} out of it."
        )
    return information


def with_checksum(information: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a source.json with a hash of all of it in it, which is read from JSON the same as it is here."""
    return {**information, _SEAL: _sha256_of_the_rest(information)}


def _sha256_of_the_rest(information: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in information.items() if key != _SEAL}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
