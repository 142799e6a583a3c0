"""Which side of a source a document is on: a pure function of its text and the corpus's first.

hash    validation documents are those whose position, a number that follows from the text alone, lies below `val_fraction`, and
        the corpus's first document, so that there always is one. So no document changes its side when more of the corpus is
        taken, and a duplicate never stands on both sides.
tail    each document is cut: the last `val_fraction` of its characters are for validation. For a few long texts, a book or
        nanoGPT's Shakespeare; both sides are then of one text, and repetitions inside it are on both.
"""

from hashlib import blake2b

import numpy as np

from data_modules.corpora.corpus import Corpus, document_text, first_document

SPLITS = ("train", "val")
SPLIT_RULES = ("hash", "tail")


def split_position(text: str) -> float:
    """A number in [0, 1) that follows from the text alone, spread evenly over texts."""
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def first_position(corpus: Corpus) -> float:
    """The position of a corpus's first document; of one without documents none that any text has."""
    document = first_document(corpus)
    return 1.0 if document is None else split_position(document_text(document))


def is_validation(positions: np.ndarray, val_fraction: float, first: float) -> np.ndarray:
    """Whether documents at these positions are for validation, where the corpus's first document is at `first`; (n,) bool."""
    return (positions < val_fraction) | (positions == first)


def cut_tail(text: str, val_fraction: float) -> tuple[str, str]:
    """A text's training and validation parts."""
    cut = int(len(text) * (1 - val_fraction))
    return text[:cut], text[cut:]


def text_digest(text: str) -> bytes:
    """16 bytes that are equal for equal texts, and for no others that anybody will ever meet."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
