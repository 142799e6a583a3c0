"""One source, from its documents to the folder that training reads."""

import json
import math
import platform
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from data_modules.corpora.documents import Document, text_of
from data_modules.preparation.shard_writer import ShardWriter
from data_modules.preparation.split import SPLITS, position_of
from gpt_lightning.tokenizer import Tokenizer
from gpt_lightning.tokenizer.base import CHAT_START

DOCUMENTS_AT_ONCE = 256  # tokenized together, on all cores


def prepare_source(
    documents: Callable[[], Iterable[Document]],
    *,
    name: str,
    tokenizer: Tokenizer,
    folder: Path,
    val_fraction: float,
    origin: Mapping[str, Any],
    licence: str,
    shard_tokens: int = 10_000_000,
    progress: Callable[[int], None] = lambda new_documents: None,
) -> dict[str, Any]:
    """Tokenize every document of a source into `folder`, and return what its `source.json` says.

    Args:
        documents: gives the documents anew at each call.
        val_fraction: share of the documents set aside for validation; at least one document always is.
        origin: where the text comes from, as it shall be recorded.
        shard_tokens: a shard ends with the document that reaches this many tokens.
        progress: called with the number of documents that were just written.

    Raises:
        ValueError: the source has fewer than two different documents, or conversations after texts, or its conversations
            need chat tokens that the tokenizer lacks.
    """
    if not 0 < val_fraction < 1:
        raise ValueError(f"val_fraction of source {name} must lie between 0 and 1, not be {val_fraction}.")
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    iterator = iter(documents())
    first = next(iterator, None)
    if isinstance(first, list) and CHAT_START not in tokenizer.special_ids:
        raise ValueError(
            f"source {name} is chat, and tokenizer {tokenizer.name} has no chat tokens: use gpt2_chatml or bpe_4096."
        )
    writers = {
        split: ShardWriter(
            partial / split,
            vocab_size=tokenizer.vocab_size,
            masked=isinstance(first, list),
            shard_tokens=shard_tokens,
        )
        for split in SPLITS
    }
    lowest, highest = 1.0, 0.0
    for batch in _batches(chain([first], iterator) if first is not None else iterator):
        for document, (ids, mask) in zip(batch, _encode(batch, tokenizer), strict=True):
            if isinstance(document, list) and not isinstance(first, list):
                raise ValueError(f"source {name} begins with a text and goes on with a conversation: split it in two.")
            text = text_of(document)
            position = position_of(text)
            lowest, highest = min(lowest, position), max(highest, position)
            writers["val" if position < val_fraction else "train"].add(
                ids, mask, n_bytes=len(text.encode("utf-8", "replace"))
            )
        progress(len(batch))
    if lowest >= highest:
        shutil.rmtree(partial)
        raise ValueError(f"source {name} needs at least two different documents, one of them for validation.")
    if lowest >= val_fraction:  # a small source without a validation document: the first by hash becomes one
        return prepare_source(
            documents,
            name=name,
            tokenizer=tokenizer,
            folder=folder,
            val_fraction=math.nextafter(lowest, 1),
            origin=origin,
            licence=licence,
            shard_tokens=shard_tokens,
        )
    information = {
        "source": name,
        "tokenizer": {
            "name": tokenizer.name,
            "fingerprint": tokenizer.fingerprint,
            "vocab_size": tokenizer.vocab_size,
            "eot_id": tokenizer.eot_id,
        },
        "splits": {split: writers[split].close() for split in SPLITS},
        "split": {"rule": "blake2b of the document's text", "val_fraction": val_fraction},
        "unigram_loss": _unigram_loss(writers["train"].counts, writers["val"].counts),
        "origin": dict(origin),
        "licence": licence,
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "tokenizers": version("tokenizers")},
    }
    (partial / "source.json").write_text(json.dumps(information, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)
    return information


def _batches(documents: Iterator[Document]) -> Iterator[list[Document]]:
    while batch := list(islice(documents, DOCUMENTS_AT_ONCE)):
        yield batch


def _encode(documents: list[Document], tokenizer: Tokenizer) -> Iterator[tuple[list[int], list[int] | None]]:
    """Ids and loss mask of each document, with the end-of-text id that ends it; None: every token bears loss."""
    encoded = iter(tokenizer.encode_batch([document for document in documents if isinstance(document, str)]))
    for document in documents:
        if isinstance(document, str):
            yield [*next(encoded), tokenizer.eot_id], None
        else:
            ids, mask = tokenizer.encode_chat(document)
            yield [*ids, tokenizer.eot_id], [*mask, 0]


def _unigram_loss(train_counts: np.ndarray, val_counts: np.ndarray) -> float:
    """Nats per loss-bearing validation token of the unigram model of the training tokens, add-one smoothed.

    What a model reaches that knows how often each token occurs and nothing else: the line that a run must leave behind.
    """
    log_probabilities = np.log(train_counts + 1) - np.log(train_counts.sum() + len(train_counts))
    return float(-(val_counts * log_probabilities).sum() / max(1, val_counts.sum()))
