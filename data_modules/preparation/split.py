"""Which side of a source a document is on: a pure function of its text.

hash    validation documents are those whose position, a number that follows from the text alone, lies below `val_fraction`. So
        the split does not change with the order or the number of the documents, and a duplicate never stands on both sides.
tail    each document is cut: the last `val_fraction` of its characters are for validation. For a few long texts, a book or
        nanoGPT's Shakespeare; both sides are then of one text, and repetitions inside it are on both.
"""

from hashlib import blake2b

SPLITS = ("train", "val")
RULES = ("hash", "tail")


def position_of(text: str) -> float:
    """A number in [0, 1) that follows from the text alone, spread evenly over texts."""
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def cut_tail(text: str, val_fraction: float) -> tuple[str, str]:
    """A text's training and validation parts."""
    cut = int(len(text) * (1 - val_fraction))
    return text[:cut], text[cut:]


def digest_of(text: str) -> bytes:
    """16 bytes that are equal for equal texts, and for no others that anybody will ever meet."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
