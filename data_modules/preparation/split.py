"""Which documents are for validation: those whose position, a pure function of their text, lies below `val_fraction`.

The same text is always on the same side, so the split does not change with the order or the number of the documents, and
a duplicate never stands on both sides.
"""

from hashlib import blake2b

SPLITS = ("train", "val")


def position_of(text: str) -> float:
    """A number in [0, 1) that follows from the text alone, spread evenly over texts."""
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53
