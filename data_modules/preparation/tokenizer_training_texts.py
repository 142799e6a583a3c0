"""Texts to train a tokenizer on, and others to measure its compression, separated by the validation split."""

from collections.abc import Iterator

import numpy as np

from data_modules.corpora.corpus import BadRecord, Corpus, document_text
from data_modules.preparation.validation_split import first_position, is_validation, split_position
from gpt_lightning.tokenizer import Tokenizer


def training_texts(corpus: Corpus, *, val_fraction: float, for_val: bool, mb: float | None) -> Iterator[str]:
    """Yield the texts of a corpus's training or validation documents.

    A tokenizer must not be trained on validation documents. Bad records are skipped; preparing the source reports them.

    Args:
        corpus: The documents.
        val_fraction: Share of the documents used for validation.
        for_val: Yield the validation documents instead of the training documents.
        mb: Stop after this number of megabytes; None: yield all.
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
    """Return the mean number of UTF-8 bytes per token."""
    return sum(len(text.encode()) for text in texts) / max(1, sum(len(ids) for ids in tokenizer.encode_batch(texts)))
