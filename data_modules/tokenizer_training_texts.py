"""What a tokenizer is trained on, and how well it fits: the texts of corpora, on their sides of the split."""

from collections.abc import Iterator

import numpy as np

from data_modules.corpora.corpus import BadRecord, Corpus, document_text
from data_modules.preparation.validation_split import first_position, is_validation, split_position
from gpt_lightning.tokenizer import Tokenizer


def training_texts(corpus: Corpus, *, val_fraction: float, for_val: bool, mb: float | None) -> Iterator[str]:
    """The texts of a corpus's training or validation documents, until they are `mb` megabytes; None: all.

    A tokenizer must not have seen what a model is validated with. Bad records are left to those who prepare the source.
    """
    n_bytes = 0
    first = first_position(corpus)
    for file in range(len(corpus.files)):
        for chunk in corpus.chunks(file, 0):
            for _, document in corpus.documents(file, chunk):
                if isinstance(document, BadRecord):
                    continue
                text = document_text(document)
                if is_validation(np.array(split_position(text)), val_fraction, first) == for_val:
                    n_bytes += len(text.encode())
                    yield text
            if mb is not None and n_bytes >= mb * 1e6:
                return


def bytes_per_token(texts: list[str], tokenizer: Tokenizer) -> float:
    """UTF-8 bytes of text for each token."""
    return sum(len(text.encode()) for text in texts) / max(1, sum(len(ids) for ids in tokenizer.encode_batch(texts)))
