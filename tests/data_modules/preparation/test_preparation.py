"""Documents to shards and back, on real text."""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_modules import SourceShards, corpora
from data_modules.corpora import FunctionCorpus, TextOrConversation
from data_modules.corpora.corpus import document_text
from data_modules.preparation import PreparationSettings, PreparationTarget, prepare_source
from data_modules.preparation.validation_split import split_position
from gpt_lightning.tokenizer import load_tokenizer
from tests.conftest import CORPORA


def prepare(
    documents: Iterable[TextOrConversation] | Callable[[], Iterable[TextOrConversation]],
    folder: Path,
    *,
    name: str | None = None,
    tokenizer: str = "gpt2_chatml",
    **recipe: Any,
) -> SourceShards:
    prepare_source(
        FunctionCorpus(documents if callable(documents) else lambda: documents),
        PreparationTarget(name=name or folder.name, tokenizer=load_tokenizer(tokenizer), folder=folder, licence="test"),
        PreparationSettings(**{"val_fraction": 0.1} | recipe),
    )
    return SourceShards(folder)


@pytest.mark.parametrize("name", CORPORA)
def test_embedded_corpora_are_real_and_repeat_themselves(name: str) -> None:
    documents = list(CORPORA[name]())
    assert documents == list(CORPORA[name]())
    assert all(len(document_text(document)) > 20 for document in documents)
    assert all(isinstance(document, list) == (name == "docstrings") for document in documents)


def test_embedded_corpora_share_no_text() -> None:
    """A validation docstring must not stand in the training text of another source."""
    code = "\n".join(document_text(document) for document in corpora.stdlib())
    answers = [document[1]["content"] for document in CORPORA["docstrings"]() if isinstance(document, list)]
    first_lines = [answer.split("\n")[0] for answer in answers if len(answer.split("\n")[0]) > 60]
    assert len(first_lines) > 50
    assert sum(line in code for line in first_lines) <= len(first_lines) * 0.02  # a few are quoted in comments


@pytest.mark.parametrize("name", CORPORA)
def test_what_is_prepared_is_what_was_read(name: str, tiny_data: Path) -> None:
    folder = tiny_data / "bpe_512" / name
    source, tokenizer = SourceShards(folder), load_tokenizer(tiny_data / "bpe_512")
    documents = list(CORPORA[name]())
    for split, stream in (("train", source.train), ("val", source.val)):
        entry = source.information["splits"][split]
        chosen = [
            d
            for d in documents
            if (d == documents[0] or split_position(document_text(d)) < source.information["split"]["val_fraction"])
            == (split == "val")
        ]
        ids = stream.read(0, len(stream))
        encoded = [tokenizer.encode(d) if isinstance(d, str) else tokenizer.encode_chat(d)[0] for d in chosen]
        assert ids.tolist() == [i for document in encoded for i in [*document, tokenizer.eot_id]]
        assert ids.dtype == np.uint16
        assert entry["documents"] == len(chosen) > 0
        assert entry["tokens"] == len(ids)
        assert entry["bytes"] == sum(len(document_text(d).encode()) for d in chosen)
        mask = stream.read_mask(0, len(stream))
        assert entry["loss_bearing_tokens"] == mask.sum()
        assert stream.masked == (name == "docstrings")
        if stream.masked:
            answers = [d[1]["content"] + "<|im_end|>" for d in chosen if isinstance(d, list)]
            assert tokenizer.decode(ids[mask].tolist()) == "".join(answers)
        for n, shard in enumerate(entry["shards"]):
            for file_name, sha256 in shard["sha256"].items():
                assert hashlib.sha256((folder / split / file_name).read_bytes()).hexdigest() == sha256
            assert len(np.load(folder / split / f"tokens_{n:04d}.npy")) == shard["tokens"]
    assert (len(source.information["splits"]["train"]["shards"]) > 1) == (
        source.train.read(0, 1).size and len(source.train) > 20_000
    )


def test_windows_may_cross_shards(tiny_data: Path) -> None:
    source = SourceShards(tiny_data / "bpe_512" / "stdlib")
    whole = source.train.read(0, len(source.train))
    border = source.information["splits"]["train"]["shards"][0]["tokens"]
    for start, stop in ((border - 5, border + 5), (border, border + 1), (border - 1, border), (0, len(whole))):
        assert np.array_equal(source.train.read(start, stop), whole[start:stop])
    assert source.train.read(-1, 3).tolist() == [0, *whole[:3]]  # the first token is predicted from end-of-text


def test_the_split_depends_on_the_text_alone(tmp_path: Path) -> None:
    documents = [f"document number {n} " * 5 for n in range(400)]
    few, all_reversed = prepare(documents[:200], tmp_path / "few"), prepare(documents[::-1], tmp_path / "all")
    tokenizer = load_tokenizer("gpt2_chatml")

    def texts(source: SourceShards, split: str) -> set[str]:
        stream = getattr(source, split)
        return set(tokenizer.decode(stream.read(0, len(stream)).tolist()).split("<|endoftext|>")) - {""}

    assert texts(few, "val") - {documents[0]} == (texts(all_reversed, "val") & set(documents[:200])) - {documents[0]}
    assert documents[0] in texts(few, "val")  # a corpus's first document always is
    assert documents[-1] in texts(all_reversed, "val")
    assert not texts(all_reversed, "val") & texts(all_reversed, "train")
    assert 20 < len(texts(all_reversed, "val")) < 65  # 10 % of 400


def test_validation_is_never_empty(tmp_path: Path) -> None:
    source = prepare(["one document", "another document", "a third"], tmp_path / "tiny", val_fraction=1e-9)
    assert source.information["splits"]["val"]["documents"] == 1
    assert source.information["splits"]["train"]["documents"] == 2
    for documents in ([], ["the same", "the same"]):
        with pytest.raises(ValueError, match="source none has too few documents: it must have at least two"):
            prepare(documents, tmp_path / "none")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny"]


def test_a_source_is_complete_or_absent(tmp_path: Path) -> None:
    def failing() -> Any:
        yield from (f"text {n}" for n in range(1000))
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        prepare(failing, tmp_path / "torn")
    assert not list(tmp_path.iterdir())
    with pytest.raises(
        ValueError, match=r"torn is not a prepared source: run python prepare.py source=torn tokenizer=.+ data_dir="
    ):
        SourceShards(tmp_path / "torn")


def test_a_source_is_of_one_kind(tmp_path: Path) -> None:
    chat: TextOrConversation = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    with pytest.raises(ValueError, match="the source has texts and conversations: it must have only one kind"):
        prepare(["a text", "another", chat], tmp_path / "mixed")


def test_chat_needs_chat_tokens(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"tokenizer gpt2 has no chat tokens: it must have them, because the source is chat. Use gpt2_chatml",
    ):
        prepare(CORPORA["docstrings"](), tmp_path / "chat", tokenizer="gpt2")
    assert not list(tmp_path.iterdir())


def test_the_unigram_line(tmp_path: Path) -> None:
    """The loss of guessing by frequency, worked out token by token."""
    source = prepare([f"{'a' * n} b {'c d' * (n % 3)}" for n in range(1, 80)], tmp_path / "letters")
    train, val = (stream.read(0, len(stream)).tolist() for stream in (source.train, source.val))
    vocab_size = 50259
    nats = [-np.log((train.count(i) + 1) / (len(train) + vocab_size)) for i in val]
    assert source.information["unigram_loss"] == pytest.approx(np.mean(nats))


def test_damaged_shards_are_refused(tmp_path: Path) -> None:
    prepare([f"text {n}" for n in range(50)], tmp_path / "source")
    path = tmp_path / "source" / "train" / "tokens_0000.npy"
    np.save(path, np.load(path)[:-1])
    with pytest.raises(ValueError, match=r"tokens_0000\.npy has [\d,]+ bytes: it must have [\d,]+\. Restore"):
        SourceShards(tmp_path / "source")
    path.unlink()
    with pytest.raises(ValueError, match=r"tokens_0000\.npy is missing"):
        SourceShards(tmp_path / "source")


def test_a_fingerprint_names_the_tokens(tmp_path: Path) -> None:
    documents = [f"text {n}" for n in range(50)]
    first = prepare(documents, tmp_path / "first", name="same")
    assert first.fingerprint == prepare(documents, tmp_path / "second", name="same").fingerprint
    assert first.fingerprint != prepare([*documents, "more"], tmp_path / "third", name="same").fingerprint
    assert json.loads((tmp_path / "first" / "source.json").read_text()) == first.information
