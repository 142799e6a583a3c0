"""The files of a prepared source, as described in its source.json.

For each shard of a split, source.json states:

    tokens                 number of tokens
    sha256                 file name -> sha256 of the whole file; the source's fingerprint is computed from these
    crc32_per_mib          file name -> crc32 of every 2^20 bytes (the last block may be shorter), 8 hex digits each;
                           a crc32 locates damage, and is faster to check than sha256
    file, offset, dtype    for a shard made by another project: path of the shard, number of bytes before the first id,
                           type of an id; the checksums of such a shard cover only the ids, under the name "ids", and
                           blocks are counted from the first id

source.json also contains a hash of itself, `sha256_of_the_rest`, see `with_checksum`. Sources that were prepared before
crc32_per_mib existed have neither this hash nor crc32_per_mib.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HEADER_BYTES = 128  # size of numpy's header of a one-dimensional array
_SEAL = "sha256_of_the_rest"
_DTYPES = ("uint16", "uint32")


@dataclass(frozen=True)
class ShardFile:
    """A file that contains tokens or masks."""

    path: Path
    masks: bool
    """True: the file contains masks (whether each token bears loss) instead of ids."""
    dtype: np.dtype
    tokens: int
    offset: int
    """Number of bytes before the first token."""
    first_byte: int
    """First byte that the checksums cover."""
    sha256: str
    crc32_per_mib: str | None
    of_others: bool

    @property
    def end(self) -> int:
        """Byte after the last token."""
        return self.offset + self.tokens * self.dtype.itemsize

    def open(self) -> np.ndarray:
        """Memory-map the values, (tokens,)."""
        values = np.memmap(self.path, dtype=self.dtype, mode="r", offset=self.offset, shape=(self.tokens,))
        return values.view(np.ndarray)  # slicing a plain array is ten times faster than slicing a memmap

    @property
    def state(self) -> str:
        """Size, modification time in nanoseconds, and inode. If these are unchanged, so is the content."""
        try:
            found = self.path.stat()
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        return f"{found.st_size} {found.st_mtime_ns} {found.st_ino}"

    def misfit(self) -> str | None:
        """Return why the file cannot hold these tokens, or None. Files of other projects may have grown."""
        if not self.path.is_file():
            return f"{self.path} is missing"
        size = self.path.stat().st_size
        torn = (size - self.offset) % self.dtype.itemsize
        if size == self.end or (self.of_others and size > self.end and not torn):
            return None
        return f"{self.path} has {size:,} bytes{', which end inside an id' * bool(torn)}: it must have {self.end:,}"


def files_of_split(folder: Path, entry: Mapping[str, Any]) -> Iterator[ShardFile]:
    """Yield the files of one split.

    Args:
        folder: The folder of the split.
        entry: The entry of the split in source.json.

    Raises:
        ValueError: The entry was not written by prepare.py: a name leads out of the folder, or ids are not integers.
    """
    for shard in entry["shards"]:
        for name, sha256 in shard["sha256"].items():
            of_others, masks = "file" in shard, name.startswith("mask")
            offset = shard["offset"] if of_others else HEADER_BYTES
            if Path(name).name != name:
                raise ValueError(f"it lists {name}, which is not in its folder")
            if (
                dtype := shard.get("dtype", entry["dtype"])
            ) not in _DTYPES:  # the dtype object would be read as pointers
                raise ValueError(f"its dtype is {dtype!r} and must be {' or '.join(_DTYPES)}")
            for number in (shard["tokens"], offset):
                if not isinstance(number, int) or number < 0:
                    raise ValueError(f"a number of tokens or bytes is {number!r} and must be a whole number, 0 or more")
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
    """List all files of a source, training first."""
    return [file for split, entry in information["splits"].items() for file in files_of_split(folder / split, entry)]


def unlisted_files(folder: Path, information: Mapping[str, Any]) -> list[Path]:
    """List shards in the folders of a source that its source.json does not list."""
    files, origin = files_of_source(folder, information), information["origin"]
    there = set(folder.rglob("*.npy"))
    if "format" in origin and Path(origin["path"]).is_dir():
        suffixes = {file.path.suffix for file in files}
        left_out = origin.get("left_out", [])  # known files that belong to neither split
        beside = (path for path in Path(origin["path"]).iterdir() if path.name not in left_out and path.name[0] != ".")
        there |= {path.resolve() for path in beside if path.suffix in suffixes}
    return sorted(there - {file.path for file in files})


def read_source_json(folder: Path) -> dict[str, Any]:
    """Read the source.json of a folder.

    Raises:
        ValueError: source.json does not exist, is damaged, or was not written by prepare.py.
    """
    path = folder / "source.json"
    if not path.is_file():
        tokenizer, data_dir = folder.parent.name, folder.parent.parent
        elsewhere = "" if data_dir == Path("data") else f" data_dir={data_dir}"
        raise ValueError(
            f"{folder} is not a prepared source: run python prepare.py source={folder.name} "
            f"tokenizer={tokenizer}{elsewhere}."
        )
    try:
        information: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): delete {folder} and prepare it again.") from error
    try:
        files_of_source(folder, information)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise ValueError(f"{path} is malformed ({what}): delete {folder} and prepare it again.") from error
    if information.get(_SEAL) not in (None, _sha256_of_the_rest(information)):
        raise ValueError(
            f"{path} was changed after it was written: delete {folder} and prepare it again. If you changed it "
            f"yourself, remove {_SEAL} from it."
        )
    return information


def with_checksum(information: Mapping[str, Any]) -> dict[str, Any]:
    """Add to the content of a source.json a hash of all other entries; the hash is stable under JSON round trips."""
    return {**information, _SEAL: _sha256_of_the_rest(information)}


def _sha256_of_the_rest(information: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in information.items() if key != _SEAL}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
