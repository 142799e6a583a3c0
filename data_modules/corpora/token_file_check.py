"""Recognise the real content of a file that should hold only little-endian uint16 token ids.

A flat file does not describe its format; 4-byte ids, for example, can be read as twice as many 2-byte ids. But the
first bytes, the other files in the folder, or values that only make sense in another format can reveal the format.
"""

import codecs
import json
from pathlib import Path

import numpy as np

_HEAD = 1 << 20  # number of bytes that are checked
_FEWEST = 8  # minimum number of values; fewer could match a format by chance
_MOST_IDS = 1 << 18  # more than any tokenizer has

_FIRST_BYTES = {
    b"PK\x03\x04": "a zip archive, which torch.save writes",
    b"\x80\x02\x8a\x0al\xfc\x9cF\xf9": "a torch.save file",
    b"\x80\x04\x95": "a pickle",
    b"\x80\x05\x95": "a pickle",
    b"\x93NUMPY": "a .npy file, which needs format=rangeflow",
    b"\x1f\x8b\x08": "compressed with gzip",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"LITPKDS": "a packed dataset of lit-gpt",
}
# headers of llm.c start with a date, in token files as well as in model and tokenizer files
_LLMC_DATES = range(2024_01_01, 2030_01_01)
_OTHER_DTYPES = {  # longest first, because their halves are plausible too
    "<i8": "8-byte integers (int64)",
    "<i4": "4-byte integers (uint32 or int32)",
    "<f8": "8-byte floats",
    "<f4": "4-byte floats",
    ">i8": "big-endian 8-byte integers",
    ">i4": "big-endian 4-byte integers",
}


def recognize_other_format(path: Path) -> str | None:
    """Return a description of a file's format if the first bytes show that the file does not contain token ids."""
    with path.open("rb") as file:
        first = file.read(16)
    for magic, what in _FIRST_BYTES.items():
        if first.startswith(magic):
            return what
    if len(first) >= 4 and (date := int(np.frombuffer(first, "<i4", count=1)[0])) in _LLMC_DATES:
        return (
            "a file with llm.c's header, which needs format=llmc"
            if date == 20240520
            else f"an llm.c file of type {date}"
        )
    return None


def recognize_by_neighbours(folder: Path) -> str | None:
    """Return why a folder's files cannot be used as token ids, judging by a meta.pkl or index.json next to them.

    None: neither file indicates that they cannot.
    """
    if (folder / "meta.pkl").is_file():
        return "its meta.pkl defines a separate vocabulary, such as nanoGPT's characters"
    try:
        index = json.loads((folder / "index.json").read_bytes())
    except (OSError, ValueError):
        return None
    if isinstance(index, dict) and "chunks" in index:
        return "its index.json belongs to litdata, so its files are litdata chunks and not flat files of ids"
    return None


def recognize_by_values(path: Path, offset: int, n_ids: int) -> str | None:
    """Return what the values of a file probably are, if this is something other than uint16 ids below `n_ids`."""
    with path.open("rb") as file:
        file.seek(offset)
        head = file.read(_HEAD)
    if _read(head, "<u2").max(initial=0) <= _MOST_IDS >> 16:  # with so few distinct ids, any pair looks like one id
        return None
    for dtype, what in _OTHER_DTYPES.items():
        values = _read(head, dtype)
        with np.errstate(invalid="ignore"):  # NaN, when integers are read as floats
            right = (values >= 0) & (values < _MOST_IDS) & (np.floor(values) == values)
        if len(values) >= _FEWEST and right.all() and values.any():
            return what
    if len(head) < 8 * _FEWEST:
        return None
    if _is_big_endian(head, n_ids):
        return "big-endian 2-byte integers"
    if _is_text(head):
        return "text"
    # in 2-byte ids, the low byte takes all values and the high byte few
    first, second = (set(np.unique(_read(head, "u1")[start::2])) for start in (0, 1))
    if max(first | second) < 128 and len(first & second) > max(_FEWEST, len(first | second) / 2):
        return "1-byte values"
    return None


def _is_big_endian(head: bytes, n_ids: int) -> bool:
    ids = _read(head, "<u2")
    zeros = [np.count_nonzero(byte == 0) for byte in (ids & 0xFF, ids >> 8)]
    # many ids that do not exist; or the first byte is zero more often, although frequent tokens have low ids
    is_strange = np.mean(ids >= n_ids) > 0.05 or zeros[0] > 2 * zeros[1] + _FEWEST
    return bool(is_strange) and int(ids.byteswap().max()) < n_ids


def _read(content: bytes, dtype: str) -> np.ndarray:
    return np.frombuffer(content, dtype, count=len(content) // np.dtype(dtype).itemsize)


def _is_text(content: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(content)  # the last character may be incomplete
    except UnicodeDecodeError:
        return False
    return all(character >= " " or character in "\t\n\r\f" for character in text)
