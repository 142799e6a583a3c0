"""Describe the content of a prepared source: document lengths, and decoded sequences as a model sees them."""

import json
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from data_modules.shards.memory_mapped_shards import SourceShards, TokenStream
from gpt_lightning.tokenizer import Tokenizer


def source_summary(information: Mapping[str, Any]) -> str:
    """Summarise the counts in a source.json, in one line."""
    train, val = information["splits"]["train"], information["splits"]["val"]
    n_bytes = train["bytes"] + val["bytes"]
    documents = information.get("documents", train["documents"] + val["documents"])
    text = (
        f"{documents:,} documents, {n_bytes / 1e6:.1f} MB, {train['tokens']:,} training tokens and {val['tokens']:,} "
        f"validation tokens, {n_bytes / (train['tokens'] + val['tokens']):.2f} bytes per token"
    )
    duplicates = information.get("duplicates", {"count": 0})
    if duplicates["count"]:
        text += f"; {duplicates['count']:,} exact duplicates {'removed' if duplicates['removed'] else 'included'}"
    bad = information.get("bad_records", {"count": 0})
    if bad["count"]:
        text += f"; {bad['count']:,} bad records skipped, the first: {bad['first'][0]}"
    return text


def describe_source(source: SourceShards, max_seq_len: int) -> dict[str, str]:
    """Return further facts about a source: label -> text."""
    information = source.information
    lengths = document_lengths(source.train)
    of_splits = (
        f"{entry['loss_bearing_tokens']:,} of {entry['tokens']:,} tokens of {split}"
        for split, entry in information["splits"].items()
    )
    low, median, high = (int(quantile) for quantile in np.quantile(lengths, (0, 0.5, 1)))
    return {
        "licence": information["licence"],
        "from": json.dumps(information["origin"], ensure_ascii=False),
        "split": f"{information['split']['rule']}, val_fraction {information['split']['val_fraction']}",
        "loss": " and ".join(of_splits) + " bear loss",
        "documents": f"{low:,} to {high:,} tokens, median {median:,}",
        "padding": f"{padding_share(source.train, max_seq_len):.1%} of sequences of {max_seq_len:,} tokens",
        "bad": f"{information.get('bad_records', {}).get('count', 0):,} records skipped",
    }


def document_lengths(stream: TokenStream) -> np.ndarray:
    """Return the number of tokens of each document, including end-of-text, (documents,) int64."""
    ends = stream.document_ends
    if not len(ends) or ends[-1] < len(stream):
        ends = np.append(ends, len(stream))  # the last document has no end-of-text id
    return np.diff(ends, prepend=0)


def random_sequences(stream: TokenStream, max_seq_len: int, n: int, *, seed: int) -> list[tuple[int, int]]:
    """Return [start, stop) of `n` random sequences, in order."""
    borders = stream.sequences(max_seq_len, whole=False)
    chosen = np.random.default_rng(seed).permutation(len(borders) - 1)[:n]
    return [(int(borders[j]), int(borders[j + 1])) for j in sorted(chosen.tolist())]


def token_texts(stream: TokenStream, start: int, stop: int, tokenizer: Tokenizer) -> Iterator[tuple[str, bool]]:
    """Yield (text, whether the text bears loss) of the tokens `start` to `stop`, cut where the mask changes."""
    ids, mask = stream.read(start, stop), stream.read_mask(start, stop)
    borders = [0, *(np.flatnonzero(np.diff(mask)) + 1).tolist(), len(ids)]
    for first, last in pairwise(borders):
        yield tokenizer.decode(ids[first:last].tolist()), bool(mask[first])


def padding_share(stream: TokenStream, max_seq_len: int) -> float:
    """Return the share of padding in the training sequences, 0 to 1."""
    borders = stream.sequences(max_seq_len, whole=True)
    n_sequences = len(borders) - 1
    return 1 - int(borders[-1]) / (n_sequences * max_seq_len) if n_sequences else 0.0
