"""Check that a tokenizer of the library `tokenizers` is a byte-level BPE, so that every text has one encoding,
and decoding the encoding gives back the text.

The file must have: no normalizer, a ByteLevel pre-tokenizer, a BPE with all 256 byte symbols, and a ByteLevel decoder.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import tokenizers
from tokenizers import pre_tokenizers

# Pre-tokenizers that may be combined with ByteLevel: they only split text, unless their behavior is Removed.
_DIVIDERS = {"Split", "Digits", "Punctuation"}

HARD_TEXTS = (
    "".join(map(chr, range(0x300))),  # control characters, Latin, accents, modifiers
    "  two  spaces\t\ttabs\r\nand\n\n\nlines \n ",
    "e\u0301 \ufb01 \uff21 \u00c5 \u212b K \u1e9b\u0323",  # changed by NFC, NFKC and lower-casing
    "\ufeff\u00a0\u2003\u2028\u200d\u2581_\u2581\ufffd \U0001f469\u200d\U0001f4bb \u0627\u0644 \ud55c \u4e2d\u6587 \U0010ffff",
    "Ġthe ##ing </w> <0x0A> <unk> [UNK] <s> 3,141.59 DON'T don't",
)


def why_not_byte_level_bpe(tokenizer: tokenizers.Tokenizer) -> str | None:
    """Return why the tokenizer is not a byte-level BPE that this project can use; None if it is one.

    Possible reasons: decoding the ids of a text might not give back the text, the encoding of a text might vary, or the
    ids are not exactly 0 to n - 1.
    """
    said = json.loads(tokenizer.to_str())
    if reason := next(_obstacles(said), None):
        return reason
    ids = sorted(tokenizer.get_vocab().values())
    return None if ids == list(range(len(ids))) else f"its {len(ids):,} ids are not exactly 0 to {len(ids) - 1:,}"


def _obstacles(said: Mapping[str, Any]) -> Iterator[str]:
    model, normalizer, decoder = said["model"], said["normalizer"], said["decoder"]
    if model["type"] != "BPE":
        yield f"its model is {model['type']}, not BPE"
        return
    if model["dropout"]:
        yield f"its model has dropout {model['dropout']:g}, which makes encodings random"
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model[key]:
            yield f"its model has the {key} {model[key]!r}, which a byte-level BPE must not have"
    if normalizer is not None and normalizer.get("normalizers") != []:
        yield f"its normalizer ({_names([normalizer])}) changes text"
    yield from _of_pre_tokenizer(said["pre_tokenizer"])
    if decoder is None or decoder["type"] != "ByteLevel":
        yield f"its decoder is {_names([decoder])}, not ByteLevel"
    if missing := sorted(set(pre_tokenizers.ByteLevel.alphabet()) - set(model["vocab"])):
        yield f"its vocabulary lacks {len(missing)} of the 256 byte symbols, such as {missing[0]!r}"
    for token in said["added_tokens"]:
        if not token["special"] and (token["lstrip"] or token["rstrip"]):
            yield f"its added token {token['content']!r} removes adjacent spaces (lstrip, rstrip)"


def _of_pre_tokenizer(said: Mapping[str, Any] | None) -> Iterator[str]:
    parts = said["pretokenizers"] if said is not None and said["type"] == "Sequence" else [said]
    there = [part for part in parts if part is not None]
    byte_level = [part for part in there if part["type"] == "ByteLevel"]
    others = [part for part in there if part["type"] != "ByteLevel"]
    if len(byte_level) != 1 or any(part["type"] not in _DIVIDERS for part in others):
        yield f"its pre-tokenizer is {_names(parts)}, not ByteLevel"
    elif byte_level[0]["add_prefix_space"]:
        yield "its pre-tokenizer inserts a space before every text (add_prefix_space)"
    elif removing := [part for part in others if part.get("behavior") == "Removed"]:
        yield f"its pre-tokenizer {_names(removing)} removes text"


def _names(parts: Iterable[Mapping[str, Any] | None]) -> str:
    return ", ".join("missing" if part is None else str(part["type"]) for part in parts)
