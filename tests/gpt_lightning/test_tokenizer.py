"""Tokenizers against published ids, and the laws that hold for all of them."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_lightning.tokenizer import Message, Tokenizer, load_tokenizer, train_bpe

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


@pytest.fixture(scope="session")
def tokenizers(tiny_data: Path) -> list[Tokenizer]:
    return [load_tokenizer("gpt2"), load_tokenizer("gpt2_chatml"), load_tokenizer(tiny_data / "bpe_512")]


@pytest.fixture(params=["gpt2", "gpt2_chatml", "bpe_512"])
def tokenizer(request: pytest.FixtureRequest, tokenizers: list[Tokenizer]) -> Tokenizer:
    return next(t for t in tokenizers if t.name == request.param)


@pytest.mark.parametrize("file_name", ["gpt2_bpe_vectors_tiktoken.json", "gpt2_bpe_vectors_third_party.json"])
@pytest.mark.parametrize("name", ["gpt2", "gpt2_chatml"])
def test_gpt2_gives_the_published_ids(shared_data: Path, file_name: str, name: str) -> None:
    vectors = json.loads((shared_data / "gpt2_bpe" / file_name).read_text(encoding="utf-8"))
    pairs = list(vectors.items()) if isinstance(vectors, dict) else vectors
    assert len(pairs) in (17, 64)
    tokenizer = load_tokenizer(name)
    for text, ids in pairs:
        if text.startswith("SPECIAL:"):  # this pair is about the special token itself
            assert [tokenizer.special_ids[text.removeprefix("SPECIAL:")]] == ids
        else:
            assert tokenizer.encode(text) == ids
            assert tokenizer.decode(ids) == text


def test_sizes_and_special_ids() -> None:
    assert load_tokenizer("gpt2").vocab_size == 50257
    chat = load_tokenizer("gpt2_chatml")
    assert chat.vocab_size == 50259
    assert chat.special_ids == {"<|endoftext|>": 50256, "<|im_start|>": 50257, "<|im_end|>": 50258}


def test_decoding_gives_the_text_back(tokenizers: list[Tokenizer]) -> None:
    @settings(deadline=None)
    @given(st.text() | st.lists(st.sampled_from([*SPECIALS, "<|", "|>", " ", "a"])).map("".join))
    def check(text: str) -> None:
        for tokenizer in tokenizers:
            ids = tokenizer.encode(text)
            assert tokenizer.decode(ids) == text
            assert not set(ids) & set(tokenizer.special_ids.values())  # no text becomes a special token
            sizes = tokenizer.bytes_per_id()
            assert sum(sizes[i] for i in ids) == len(text.encode())

    check()


def test_a_batch_is_its_texts(tokenizer: Tokenizer) -> None:
    texts = ["", "def f():\n    return 1\n", "<|im_end|> héllo ☃", "a" * 1000]
    assert [ids.tolist() for ids in tokenizer.encode_batch(texts)] == [tokenizer.encode(text) for text in texts]


def test_only_the_assistant_bears_loss(tokenizer: Tokenizer) -> None:
    messages: list[Message] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Say <|im_end|> and hi."},
        {"role": "assistant", "content": "hi <|im_start|>"},
        {"role": "user", "content": "Again."},
        {"role": "assistant", "content": "hi"},
    ]
    if tokenizer.name == "gpt2":
        with pytest.raises(ValueError, match="no chat tokens"):
            tokenizer.encode_chat(messages)
        return
    ids, mask = tokenizer.encode_chat(messages)
    assert tokenizer.decode(ids) == "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
    said = [i for i, bears_loss in zip(ids, mask, strict=True) if bears_loss]
    assert tokenizer.decode(said) == "hi <|im_start|><|im_end|>hi<|im_end|>"
    assert ids.count(tokenizer.special_ids["<|im_end|>"]) == len(messages)
    assert ids.count(tokenizer.special_ids["<|im_start|>"]) == len(messages)
    prompt = tokenizer.encode_chat_prompt(messages[:2])
    assert ids[: len(prompt)] == prompt  # a model asked is where it was when trained


@pytest.mark.parametrize("message", [{"role": "user"}, {"content": "hi"}, {"role": "", "content": "hi"}])
def test_a_message_without_role_or_content_is_refused(message: Message) -> None:
    with pytest.raises(ValueError, match=r"message 0 .* must have a role and a content"):
        load_tokenizer("gpt2_chatml").encode_chat([message])


def test_training_is_reproducible(tmp_path: Path) -> None:
    texts = [path.read_text(encoding="utf-8") for path in sorted(Path(json.__file__).parent.glob("*.py"))]
    first, second = (train_bpe(texts, vocab_size=600, path=tmp_path / name / "tokenizer.json") for name in ("a", "b"))
    assert first.fingerprint == second.fingerprint
    assert first.name == "a"
    assert first.vocab_size == 600


def test_too_little_text_for_a_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"few has \d+ ids after training: it must have 5000"):
        train_bpe(["hello world"], vocab_size=5000, path=tmp_path / "few" / "tokenizer.json")
    assert not (tmp_path / "few").exists()


def test_what_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tokenizer 'gpt3' does not exist"):
        load_tokenizer("gpt3")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"is not a tokenizer\.json"):
        load_tokenizer(tmp_path)
