"""The tokenizer files beside a model give our ids in transformers."""

import json
from pathlib import Path
from typing import Any

import pytest

from gpt_lightning.convert import (
    to_hf,
    to_native,
)
from gpt_lightning.tokenizer import Message, Tokenizer, load_tokenizer
from tests.gpt_lightning.convert.oracles import (
    format_of,
)
from tests.gpt_lightning.tiny_models import GPT2, LLAMA, build


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """What every machine has: Python files, and what breaks tokenizers."""
    strange = [
        "",
        " ",
        "\n\n\n  x",
        "naïve  café\t☃ 한국어 🙂🙂",
        "don't we'll I'D 3,141.59",
        "  trailing  ",
        "a" * 500,
    ]
    return strange + [path.read_text(encoding="utf-8") for path in sorted(Path(json.__file__).parent.glob("*.py"))]


def export(model_choices: dict[str, Any], tokenizer: Tokenizer, folder: Path) -> Path:
    model = build(**model_choices, vocab_size=tokenizer.vocab_size)
    to_hf(model, folder, tokenizer=tokenizer, format=format_of(model_choices))
    return folder


@pytest.mark.parametrize(("name", "choices"), [("gpt2", GPT2), ("gpt2_chatml", LLAMA), ("bpe_512", LLAMA)])
def test_auto_tokenizer_gives_our_ids(
    transformers: Any, tiny_data: Path, tmp_path: Path, texts: list[str], name: str, choices: dict[str, Any]
) -> None:
    ours = load_tokenizer(name if name != "bpe_512" else tiny_data / name)
    folder = export(choices, ours, tmp_path / "out")
    theirs = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    assert len(theirs) == ours.vocab_size
    assert theirs.bos_token_id == theirs.eos_token_id == ours.eot_id
    for text in texts:
        ids = ours.encode(text)
        assert theirs(text).input_ids == ids
        assert theirs.decode(ids) == text
    for token, token_id in ours.special_ids.items():
        assert theirs.convert_tokens_to_ids(token) == token_id
        assert theirs.decode([token_id, *ours.encode("x")], skip_special_tokens=True) == "x"
    back = load_tokenizer(folder)
    assert [ids.tolist() for ids in back.encode_batch(texts)] == [ours.encode(text) for text in texts]
    assert back.special_ids == ours.special_ids


def test_auto_tokenizer_gives_our_ids_on_real_corpora(transformers: Any, shared_data: Path, tmp_path: Path) -> None:
    ours = load_tokenizer("gpt2")
    theirs = transformers.AutoTokenizer.from_pretrained(export(GPT2, ours, tmp_path / "out"), local_files_only=True)
    lines = (shared_data / "c4" / "c4_demo.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines[:200]]
    texts += [
        text for text, _ in json.loads((shared_data / "gpt2_bpe" / "gpt2_bpe_vectors_third_party.json").read_text())
    ]
    assert theirs(texts).input_ids == [ids.tolist() for ids in ours.encode_batch(texts)]


@pytest.mark.parametrize("name", ["gpt2_chatml", "bpe_512"])
def test_chats_have_our_ids_and_ends(transformers: Any, tiny_data: Path, tmp_path: Path, name: str) -> None:
    ours = load_tokenizer(name if name != "bpe_512" else tiny_data / name)
    folder = export(LLAMA, ours, tmp_path / "out")
    theirs = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    chat: list[Message] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Give three reasons:\n1. one\n2. two"},
        {"role": "assistant", "content": "No.\n\n    Really, no."},
    ]
    assert theirs.apply_chat_template(chat)["input_ids"] == ours.encode_chat(chat)[0]
    prompt = theirs.apply_chat_template(chat[:2], add_generation_prompt=True)["input_ids"]
    assert prompt == ours.encode_chat_prompt(chat[:2])
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    assert model.generation_config.eos_token_id == [ours.eot_id, ours.special_ids["<|im_end|>"]]


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(tmp_path: Path) -> None:
    for write in (to_native, lambda model, folder, tokenizer: to_hf(model, folder, tokenizer=tokenizer, format="gpt2")):
        with pytest.raises(
            ValueError, match=r"model\.vocab_size is 97: it must be at least 50257, the number of ids of tokenizer gpt2"
        ):
            write(build(**GPT2), tmp_path / "out", load_tokenizer("gpt2"))
    assert not list(tmp_path.iterdir())


def test_exported_tokenizers_name_no_token_types(tiny_data: Path, tmp_path: Path) -> None:
    """transformers 4 would give them to a model of the Llama kind, which adds them to its embeddings or refuses them."""
    export(LLAMA, load_tokenizer(tiny_data / "bpe_512"), tmp_path / "out")
    config = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert config["model_input_names"] == ["input_ids", "attention_mask"]
