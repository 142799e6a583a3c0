"""Assign documents to the training or validation split, as a pure function of their text and the corpus's first
document.

hash    A document is for validation if its position, a number computed only from its text, is below `val_fraction`.
        The corpus's first document is always for validation, so that there is at least one. A document keeps its
        split when more of the corpus is used, and duplicates are never in both splits.
tail    Each document is cut: the last `val_fraction` of its characters are for validation. For a few long texts, such
        as a book or nanoGPT's Shakespeare. Both splits then come from the same text, so a repeated passage can be in
        both.
"""

from hashlib import blake2b

import numpy as np

from data_modules.corpora.corpus import Corpus, document_text, first_document

SPLITS = ("train", "val")
SPLIT_RULES = ("hash", "tail")


def split_position(text: str) -> float:
    """Return a number in [0, 1) that depends only on the text; the numbers are uniform over texts."""
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def first_position(corpus: Corpus) -> float:
    """Return the position of a corpus's first document; for an empty corpus, a number that is not the position of any
    text.
    """
    document = first_document(corpus)
    return 1.0 if document is None else split_position(document_text(document))


def is_validation(positions: np.ndarray, val_fraction: float, first: float) -> np.ndarray:
    """Return whether documents are for validation, (n,) bool, given the positions of the documents and of the corpus's
    first document.
    """
    return (positions < val_fraction) | (positions == first)


def cut_tail(text: str, val_fraction: float) -> tuple[str, str]:
    """Return the training and validation parts of a text."""
    cut = int(len(text) * (1 - val_fraction))
    return text[:cut], text[cut:]


def text_digest(text: str) -> bytes:
    """Return 16 bytes that are equal for equal texts; a collision of different texts is practically impossible."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
