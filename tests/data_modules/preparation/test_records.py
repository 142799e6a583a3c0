"""Which records become documents, which of these are taken, and on which side each stands."""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_modules import SourceShards
from data_modules.corpora import BadRecord, FunctionCorpus, TextOrConversation
from data_modules.corpora.corpus import document_text
from data_modules.preparation import PreparationProgress, PreparationSettings, PreparationTarget, prepare_source
from data_modules.preparation.validation_split import split_position
from gpt_lightning.tokenizer import Tokenizer, load_tokenizer
from tests.conftest import CORPORA
from tests.data_modules.preparation.conftest import LIBRARY, pieces_of_code
from tests.data_modules.preparation.preparation_process import Job, alone, contents


@cache
def tokenizer() -> Tokenizer:
    return load_tokenizer("gpt2_chatml")


def prepare(
    documents: Iterable[TextOrConversation | BadRecord] | Callable[[], Any], folder: Path, **recipe: Any
) -> SourceShards:
    prepare_source(
        FunctionCorpus(documents if callable(documents) else lambda: documents),
        PreparationTarget(name=folder.name, tokenizer=tokenizer(), folder=folder, licence="test"),
        PreparationSettings(**{"val_fraction": 0.1, "shard_tokens": 5_000} | recipe),
    )
    return SourceShards(folder)


def ids(source: SourceShards, split: str) -> list[int]:
    stream = getattr(source, split)
    return list(stream.read(0, len(stream)).tolist())


def texts(source: SourceShards, split: str) -> list[str]:
    return tokenizer().decode(ids(source, split)).split("<|endoftext|>")[:-1]


def write_with_bad(path: Path, *, good: int, bad_lines: Iterable[int]) -> Job:
    """Short texts, and at these lines none; the job is to skip them."""
    lines = [json.dumps({"text": f"text {n}"}) for n in range(good)]
    for line in sorted(bad_lines):
        lines.insert(line - 1, '{"text": ')
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return Job(str(path), str(path.parent / "data" / "source"), recipe={"on_bad_record": "skip"})


def test_a_bad_record_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    job = write_with_bad(tmp_path / "texts.jsonl", good=200, bad_lines=[107])
    with pytest.raises(ValueError, match=re.escape("texts.jsonl, line 107: it is not JSON (")) as refused:
        job.prepare(on_bad_record="error")
    assert str(refused.value).endswith("Set on_bad_record=skip to skip and count such records.")
    assert not list((tmp_path / "data").glob("*"))


@pytest.mark.parametrize(
    ("good", "bad", "is_taken"), [(999, 1, True), (998, 1, False), (2997, 3, True), (2996, 3, False)]
)
def test_one_in_a_thousand_may_be_bad(good: int, bad: int, is_taken: bool, tmp_path: Path) -> None:
    job = write_with_bad(tmp_path / "texts.jsonl", good=good, bad_lines=range(7, 7 + bad))
    named = [f"texts.jsonl, line {line}: it is not JSON" for line in range(7, 7 + bad)]
    if is_taken:
        information = job.prepare()
        assert information["records"] == good + bad
        assert information["bad_records"]["count"] == bad
        assert [reason.split(" (")[0] for reason in information["bad_records"]["first"]] == named
        assert sum(entry["documents"] for entry in information["splits"].values()) == good
    else:
        said = f"{bad} of {good + bad:,} records are bad, which is more than one in a thousand: "
        with pytest.raises(ValueError, match=re.escape(said) + r".* The first: " + ".*; ".join(named)):
            job.prepare()
        assert not list((tmp_path / "data").glob("*"))


def test_only_the_first_bad_records_are_named(tmp_path: Path) -> None:
    bad_lines = range(5, 5 + 11 * 900, 900)
    bad = write_with_bad(tmp_path / "texts.jsonl", good=11_000, bad_lines=bad_lines).prepare()["bad_records"]
    assert bad["count"] == 11
    assert [int(re.search(r"line (\d+)", reason)[1]) for reason in bad["first"]] == list(bad_lines)[:10]


def test_a_corpus_that_is_hopeless_is_given_up_early(tmp_path: Path) -> None:
    read = 0

    def documents() -> Iterator[TextOrConversation | BadRecord]:
        nonlocal read
        for read in range(100_000):
            yield BadRecord("is nothing") if read % 20 == 0 else f"text {read}"

    with pytest.raises(ValueError, match=r"more than one in a thousand: .* The first: document 1: is nothing; "):
        prepare(documents, tmp_path / "source", on_bad_record="skip")
    assert 2_000 < read < 3_000


def test_one_may_begin_to_skip_but_not_cease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A preparation that stopped at a bad record goes on without it, to the same bytes; what skipped one has to own up to it."""
    job = write_with_bad(tmp_path / "in" / "texts.jsonl", good=3000, bad_lines=[2000])
    once = Job(job.path, str(tmp_path / "once" / "source"), recipe=job.recipe)
    once.prepare()
    monkeypatch.setattr("data_modules.preparation.resumable_part.COMMIT_SECONDS", -1.0)
    monkeypatch.setattr("data_modules.corpora.file_formats.CHUNK_BYTES", 1 << 10)
    with pytest.raises(ValueError, match=re.escape("texts.jsonl, line 2000: it is not JSON")):
        job.prepare(on_bad_record="error")
    assert 1000 < job.records < 2000

    def interrupt(progress: PreparationProgress) -> None:
        if progress.documents > 2500:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job.parts().prepare_all(workers=1, progress=interrupt)
    assert 2000 < job.records < 3000
    for refused in (lambda: job.prepare(on_bad_record="error"), job.parts(on_bad_record="error").join):
        with pytest.raises(ValueError, match=re.escape("texts.jsonl, line 2000: it is not JSON")):
            refused()
    assert job.prepare()["bad_records"]["count"] == 1
    assert contents(Path(job.folder)) == contents(Path(once.folder))


def test_texts_and_conversations_are_not_mixed(tmp_path: Path) -> None:
    """Not in one chunk, and not in two."""
    chat = list(CORPORA["docstrings"]())[: FunctionCorpus.CHUNK]
    code = pieces_of_code(FunctionCorpus.CHUNK, characters=100)
    for documents in (chat + code, code + chat, [chat[0], code[0]]):
        with pytest.raises(ValueError, match="the source has texts and conversations: it must have only one kind"):
            prepare(documents, tmp_path / "source")
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("deduplicate", [None, "exact"])
def test_of_equal_texts_the_first_is_kept_or_all(deduplicate: str | None, tmp_path: Path) -> None:
    once = pieces_of_code(200, characters=500)
    documents = [*once[:150], *once[100:50:-1], *once]
    source = prepare(documents, tmp_path / "source", deduplicate=deduplicate)
    assert source.information["duplicates"] == {"count": 200, "removed": deduplicate == "exact"}
    expected = once if deduplicate else documents
    for split in ("train", "val"):
        chosen = [text for text in expected if (text == once[0] or split_position(text) < 0.1) == (split == "val")]
        assert texts(source, split) == chosen
        assert source.information["splits"][split]["documents"] == len(chosen) > 5
    assert not set(texts(source, "train")) & set(texts(source, "val"))


@pytest.mark.parametrize("deduplicate", [None, "exact"])
def test_a_limit_takes_a_prefix(deduplicate: str | None, tmp_path: Path) -> None:
    """Of the documents, and so of both streams; it ends with the document that reaches it."""
    documents = pieces_of_code(300, characters=500)
    documents = [*documents[:100], *documents]
    taken = list(dict.fromkeys(documents)) if deduplicate else documents
    totals = np.cumsum([len(tokenizer().encode(text)) + 1 for text in taken])
    sources = {}
    for limit in (2_000, int(totals[59]), int(totals[59]) + 1, 30_000, None):
        source = prepare(documents, tmp_path / str(limit), deduplicate=deduplicate, limit_tokens=limit)
        last = len(taken) - 1 if limit is None else int(np.searchsorted(totals, limit))
        assert len(source.train) + len(source.val) == totals[last]
        assert set(texts(source, "train")) | set(texts(source, "val")) == set(taken[: last + 1])
        sources[limit] = source
    for smaller, larger in zip(list(sources.values()), list(sources.values())[1:], strict=False):
        for split in ("train", "val"):
            assert ids(smaller, split) == ids(larger, split)[: len(ids(smaller, split))]
    trained_on = {text for source in sources.values() for text in texts(source, "train")}
    assert not trained_on & {text for source in sources.values() for text in texts(source, "val")}
    assert len(texts(sources[2_000], "val")) < len(texts(sources[None], "val"))


def test_a_limit_of_chat_takes_whole_conversations(tmp_path: Path) -> None:
    documents = list(CORPORA["docstrings"]())
    source = prepare(documents, tmp_path / "source", limit_tokens=5_000)
    lengths = [len(tokenizer().encode_chat(document)[0]) + 1 for document in documents if isinstance(document, list)]
    last = int(np.searchsorted(np.cumsum(lengths), 5_000))
    assert len(source.train) + len(source.val) == sum(lengths[: last + 1])
    positions = [split_position(document_text(document)) for document in documents[: last + 1]]
    assert source.information["splits"]["val"]["documents"] == sum(
        position < 0.1 or position == positions[0] for position in positions
    )


def test_shakespeare_is_split_as_in_nanogpt(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "books" / "tinyshakespeare.txt"
    splits = Job(str(path), str(tmp_path / "source"), tokenizer="gpt2", recipe={"split": "tail"}).prepare()["splits"]
    assert (splits["train"]["tokens"], splits["val"]["tokens"]) == (301_966, 36_059)


@pytest.mark.parametrize("limit_tokens", [None, 1])
def test_the_tail_of_each_text_is_for_validation(limit_tokens: int | None, tmp_path: Path) -> None:
    """Texts are separated, with nothing before the first and after the last; a limit leaves none without its tail."""
    documents = [(LIBRARY / name).read_text(encoding="utf-8") for name in ("argparse.py", "heapq.py", "typing.py")]
    source = prepare(documents, tmp_path / "source", split="tail", val_fraction=0.25, limit_tokens=limit_tokens)
    for split in ("train", "val"):
        expected: list[int] = []
        for text in documents[:limit_tokens]:
            cut = int(len(text) * 0.75)
            part = tokenizer().encode(text[:cut] if split == "train" else text[cut:])
            expected += [tokenizer().eot_id, *part] if expected else part
        assert ids(source, split) == expected


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    code = "".join(pieces_of_code(1000))
    megabytes = {}
    for mb in (4, 16):
        with (tmp_path / f"{mb}.jsonl").open("w") as file:
            for n in range(mb * 1000 // 4):
                start = n * 4000 % (len(code) - 4000)
                file.write(json.dumps({"text": f"{n}\n{code[start : start + 4000]}"}) + "\n")
        job = Job(str(tmp_path / f"{mb}.jsonl"), str(tmp_path / f"data_{mb}"), recipe={"shard_tokens": 200_000})
        megabytes[mb] = alone("measured", job)
    assert megabytes[16] < megabytes[4] + 15


def test_recipes_that_are_none_are_refused() -> None:
    for values, sentence in (
        ({"val_fraction": 1.0}, "val_fraction is 1.0: it must be above 0 and below 1."),
        ({"split": "head"}, "split is head: it must be hash or tail."),
        ({"on_bad_record": "ignore"}, "on_bad_record is ignore: it must be error or skip."),
        ({"deduplicate": "fuzzy"}, "deduplicate is fuzzy: it must be null or exact."),
        ({"limit_tokens": 0}, "limit_tokens is 0: it must be a whole number of tokens, 1 or more."),
    ):
        with pytest.raises(ValueError, match=re.escape(sentence)):
            PreparationSettings(**values)
