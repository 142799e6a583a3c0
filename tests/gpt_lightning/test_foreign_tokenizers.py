"""Tokenizer files that others made: a byte-level BPE gives every text back, and nothing else is taken."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from gpt_lightning.tokenizer import Tokenizer, load_tokenizer

SPECIAL = ["<|endoftext|>"]
LONG = "the cat sat on the mat, " * 40
TEXTS = ["short", LONG, " naïve  café\t한국어 e\u0301 \ufb01 <|endoftext|>"]

Change = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def plain(tiny_data: Path) -> dict[str, Any]:
    """What stands in a tokenizer.json of ours."""
    said: dict[str, Any] = json.loads((tiny_data / "bpe_512" / "tokenizer.json").read_text(encoding="utf-8"))
    return said


@pytest.fixture
def changed(plain: dict[str, Any], tmp_path: Path) -> Callable[[Change], Tokenizer]:
    """The tokenizer of that file, changed first."""

    def load(change: Change) -> Tokenizer:
        said = json.loads(json.dumps(plain))
        change(said)
        (tmp_path / "theirs").mkdir()
        (tmp_path / "theirs" / "tokenizer.json").write_text(json.dumps(said), encoding="utf-8")
        return load_tokenizer(tmp_path / "theirs")

    return load


def truncate(said: dict[str, Any]) -> None:
    said["truncation"] = {"direction": "Right", "max_length": 16, "strategy": "LongestFirst", "stride": 0}


def pad(said: dict[str, Any]) -> None:
    said["padding"] = {
        **{"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None},
        **{"pad_id": 0, "pad_type_id": 0, "pad_token": "<|endoftext|>"},
    }


def both(said: dict[str, Any]) -> None:
    truncate(said)
    pad(said)


@pytest.mark.parametrize("change", [truncate, pad, both])
def test_stored_truncation_and_padding_are_switched_off(
    change: Change, changed: Callable[[Change], Tokenizer], tiny_data: Path, tmp_path: Path
) -> None:
    """In the export too, which has the same fingerprint."""
    ours, theirs = load_tokenizer(tiny_data / "bpe_512"), changed(change)
    expected = [ours.encode(text) for text in TEXTS]
    assert [theirs.encode(text) for text in TEXTS] == expected
    assert [ids.tolist() for ids in theirs.encode_batch(TEXTS)] == expected
    exported = tokenizers.Tokenizer.from_str(theirs.to_hf_json())
    assert exported.encode(LONG).ids == ours.encode(LONG)
    assert exported.encode_batch(["short", LONG])[0].ids == ours.encode("short")
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported" / "tokenizer.json").write_text(theirs.to_hf_json(), encoding="utf-8")
    assert load_tokenizer(tmp_path / "exported").fingerprint == theirs.fingerprint


def put_end_of_text_around(said: dict[str, Any]) -> None:
    processor = processors.TemplateProcessing(single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)])
    said["post_processor"] = json.loads(processor.__getstate__())


def test_an_export_puts_no_special_tokens_around_a_text(changed: Callable[[Change], Tokenizer]) -> None:
    theirs = changed(put_end_of_text_around)
    exported = tokenizers.Tokenizer.from_str(theirs.to_hf_json())
    assert exported.encode("a text").ids == theirs.encode("a text")


def as_transformers_saves(said: dict[str, Any]) -> None:
    """GPT-2's file on the hub, and what GPT2TokenizerFast saves: the empty string where ours has null."""
    said["model"] |= {"continuing_subword_prefix": "", "end_of_word_suffix": "", "unk_token": ""}
    said["post_processor"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
    said["added_tokens"][0]["normalized"] = True
    del said["pre_tokenizer"]["use_regex"]


def as_of_code_models(said: dict[str, Any]) -> None:
    """Digits apart, and no normalizers in a sequence."""
    digits = {"type": "Digits", "individual_digits": True}
    said["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, said["pre_tokenizer"]]}
    said["normalizer"] = {"type": "Sequence", "normalizers": []}


def as_with_a_pattern_of_its_own(said: dict[str, Any]) -> None:
    pattern = {"type": "Split", "pattern": {"Regex": r"\p{L}+|\s+"}, "behavior": "Isolated", "invert": False}
    parts = [pattern, said["pre_tokenizer"] | {"use_regex": False}]
    said["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": parts}


def as_with_runs_of_spaces(said: dict[str, Any]) -> None:
    """Added tokens that are no special ones, such as GPT-NeoX's."""
    token = said["added_tokens"][0] | {"id": 512, "content": "   ", "special": False, "normalized": True}
    said["added_tokens"].append(token)


@pytest.mark.parametrize(
    "change", [as_transformers_saves, as_of_code_models, as_with_a_pattern_of_its_own, as_with_runs_of_spaces]
)
def test_byte_level_files_of_the_field_are_read(change: Change, changed: Callable[[Change], Tokenizer]) -> None:
    tokenizer = changed(change)
    for text in [*TEXTS, "x" + " " * 7 + "1234"]:
        assert tokenizer.decode(tokenizer.encode(text)) == text


def of_model(**choices: Any) -> Change:
    return lambda said: said["model"].update(choices)


def of_pre_tokenizer(*parts: Any) -> Change:
    pre_tokenizer = parts[0] if len(parts) == 1 else pre_tokenizers.Sequence(list(parts))
    return lambda said: said.update(pre_tokenizer=pre_tokenizer and json.loads(pre_tokenizer.__getstate__()))


def of_normalizer(normalizer: Any) -> Change:
    return lambda said: said.update(normalizer=json.loads(normalizer.__getstate__()))


def of_token(**choices: Any) -> Change:
    return lambda said: said["added_tokens"][0].update(choices)


def without_bytes(said: dict[str, Any]) -> None:
    """As the trainer of `tokenizers` leaves it when nobody gives it the alphabet; the ids stay without a gap."""
    last = said["model"]["vocab"].pop("ÿ")
    said["model"]["vocab"] = {token: token_id - (token_id > last) for token, token_id in said["model"]["vocab"].items()}


def with_a_gap(said: dict[str, Any]) -> None:
    said["model"]["vocab"]["<pad>"] = 600


def with_a_greedy_token(said: dict[str, Any]) -> None:
    said["added_tokens"].append(
        said["added_tokens"][0] | {"id": 512, "content": "ab", "special": False, "lstrip": True}
    )


BYTE_LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (of_model(dropout=0.1), "its model has dropout 0.1, which makes encodings random"),
        (of_model(continuing_subword_prefix="##", merges=[]), "its model has the continuing_subword_prefix '##'"),
        (of_model(end_of_word_suffix="</w>"), "its model has the end_of_word_suffix '</w>'"),
        (of_normalizer(normalizers.NFC()), "its normalizer (NFC) changes text"),
        (of_normalizer(normalizers.Sequence([normalizers.Lowercase()])), "its normalizer (Sequence) changes text"),
        (of_pre_tokenizer(None), "its pre-tokenizer is missing, not ByteLevel"),
        (of_pre_tokenizer(pre_tokenizers.Whitespace()), "its pre-tokenizer is Whitespace, not ByteLevel"),
        (
            of_pre_tokenizer(pre_tokenizers.WhitespaceSplit(), BYTE_LEVEL),
            "its pre-tokenizer is WhitespaceSplit, ByteLevel, not ByteLevel",
        ),
        (of_pre_tokenizer(BYTE_LEVEL, BYTE_LEVEL), "its pre-tokenizer is ByteLevel, ByteLevel, not ByteLevel"),
        (
            of_pre_tokenizer(pre_tokenizers.Split("\t", "removed"), BYTE_LEVEL),
            "its pre-tokenizer Split removes text",
        ),
        (
            of_pre_tokenizer(pre_tokenizers.ByteLevel(add_prefix_space=True)),
            "its pre-tokenizer inserts a space before every text (add_prefix_space)",
        ),
        (lambda said: said.update(decoder=None), "its decoder is missing, not ByteLevel"),
        (lambda said: said.update(decoder={"type": "Fuse"}), "its decoder is Fuse, not ByteLevel"),
        (without_bytes, "its vocabulary lacks 1 of the 256 byte symbols, such as 'ÿ'"),
        (with_a_gap, "its 513 ids are not exactly 0 to 512"),
        (with_a_greedy_token, "its added token 'ab' removes adjacent spaces"),
        (of_token(special=False), "the text '<|endoftext|>' becomes a special token"),
    ],
)
def test_a_file_that_loses_or_changes_text_is_refused(
    change: Change, said: str, changed: Callable[[Change], Tokenizer]
) -> None:
    whole = f"tokenizer.json is not a lossless byte-level BPE: {said}"
    with pytest.raises(ValueError, match=rf"{re.escape(whole)}.*\. Use tokenizer=gpt2"):
        changed(change)


def word_level() -> Any:
    return models.WordLevel(unk_token="[UNK]"), trainers.WordLevelTrainer(special_tokens=["[UNK]", *SPECIAL])


def word_piece() -> Any:
    return models.WordPiece(unk_token="[UNK]"), trainers.WordPieceTrainer(special_tokens=["[UNK]", *SPECIAL])


def unigram() -> Any:
    return models.Unigram(), trainers.UnigramTrainer(
        vocab_size=30, unk_token="[UNK]", special_tokens=["[UNK]", *SPECIAL]
    )


def characters() -> Any:
    """BPE with the bytes of what it does not know, as Llama 2 has it."""
    specials = ["[UNK]", *SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    return models.BPE(unk_token="[UNK]", byte_fallback=True), trainers.BpeTrainer(special_tokens=specials)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (word_level, "its model is WordLevel, not BPE"),
        (word_piece, "its model is WordPiece, not BPE"),
        (unigram, "its model is Unigram, not BPE"),
        (characters, "its pre-tokenizer is Metaspace, not ByteLevel"),
    ],
)
def test_other_kinds_of_tokenizers_are_refused(make: Callable[[], Any], said: str, tmp_path: Path) -> None:
    model, trainer = make()
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer.show_progress = False
    tokenizer.train_from_iterator([LONG], trainer)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match=said):
        load_tokenizer(tmp_path)
