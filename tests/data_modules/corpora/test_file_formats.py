"""The same documents in every format, whole and from any record on."""

import bz2
import csv
import gzip
import io
import json
import lzma
import pickle
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_modules.corpora import BadRecord, FileCorpus, TextOrConversation, file_formats, find_local_files
from tests.conftest import CORPORA

Records = list[dict[str, Any]]
ALPACA = {"instruction": "instruction", "input": "input", "output": "output"}


def _lines(records: Records) -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def _table(delimiter: str) -> Callable[[Records], bytes]:
    def write(records: Records) -> bytes:
        file = io.StringIO(newline="")
        writer = csv.DictWriter(file, ["n", "body"], extrasaction="ignore", delimiter=delimiter)
        writer.writeheader()
        writer.writerows(records)
        return file.getvalue().encode()

    return write


def _parquet(records: Records) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(records, SCHEMA), sink, row_group_size=7)
    return sink.getvalue()


def _arrow(make: Callable[..., Any]) -> Callable[[Records], bytes]:
    def write(records: Records) -> bytes:
        sink = io.BytesIO()
        with make(sink, SCHEMA) as writer:
            for start in range(0, len(records), 11):
                writer.write_batch(pa.RecordBatch.from_pylist(records[start : start + 11], SCHEMA))
        return sink.getvalue()

    return write


SCHEMA = pa.schema([("n", pa.int64()), ("body", pa.string()), ("more", pa.list_(pa.struct([("x", pa.string())])))])
WRITERS: dict[str, Callable[[Records], bytes]] = {
    "lines.jsonl": _lines,
    "lines.ndjson": _lines,
    "lines.json": _lines,
    "array.json": lambda records: json.dumps(records).encode(),  # not a byte of it is beyond ASCII
    "indented.json": lambda records: json.dumps(records, indent=2, ensure_ascii=False).encode(),
    "table.csv": _table(","),
    "table.tsv": _table("\t"),
    "groups.parquet": _parquet,
    "stream.arrow": _arrow(pa.ipc.new_stream),
    "file.arrow": _arrow(pa.ipc.new_file),
}
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": lambda content: pa.Codec("zstd").compress(content, asbytes=True),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


def records_of(texts: Iterable[str]) -> Records:
    return [{"n": n, "body": text, "more": [{"x": "]}"}]} for n, text in enumerate(texts)]


def write(folder: Path, name: str, content: bytes) -> Path:
    """Write a file, compressed as its name says."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(COMPRESSIONS.get(Path(name).suffix, bytes)(content))
    return folder / name


def corpus_of(path: Path, fields: Mapping[str, str] | None = None) -> FileCorpus:
    return FileCorpus(find_local_files(str(path)), fields=fields or {"text": "body"}, origin={}, max_record_mb=32)


def read(corpus: FileCorpus, *, file: int = 0, first: int = 0) -> list[TextOrConversation | BadRecord]:
    """The documents of a file from a record on; chunks follow each other without a gap and can go to another process."""
    found: list[TextOrConversation | BadRecord] = []
    reached = first
    for chunk in corpus.chunks(file, first):
        assert chunk.first == reached < chunk.stop
        reached = chunk.stop
        found += [document for _, document in corpus.documents(file, pickle.loads(pickle.dumps(chunk)))]
    return found


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [str(text) for text in CORPORA["pydoc"]()]


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("name", WRITERS)
def test_every_format_holds_the_same(
    name: str, compression: str, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the front, and from each record on, in chunks of one record and of many."""
    corpus = corpus_of(write(tmp_path, name + compression, WRITERS[name](records_of(texts))))
    assert read(corpus) == texts
    monkeypatch.setattr(file_formats, "CHUNK_BYTES", 9000)
    assert 3 < len(list(corpus.chunks(0, 0))) < len(texts)
    for first in range(0, len(texts) + 3, 1 if compression == "" else 7):
        assert read(corpus, first=first) == texts[first:]


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("suffix", [".txt", ".md"])
def test_a_text_may_have_a_file_for_itself(suffix: str, compression: str, texts: list[str], tmp_path: Path) -> None:
    for n, text in enumerate(texts):
        write(tmp_path / f"{n // 10}", f"{n:03d}{suffix}{compression}", text.encode())
    corpus = corpus_of(tmp_path)
    assert [read(corpus, file=n) for n in range(len(corpus.files))] == [[text] for text in texts]
    assert read(corpus, first=1) == []
    assert [file.name for file in corpus.files[9:11]] == [
        f"0/009{suffix}{compression}",
        f"1/010{suffix}{compression}",
    ]
    assert all(file.n_bytes == (tmp_path / file.name).stat().st_size for file in corpus.files)


@settings(max_examples=200, deadline=None)
@given(
    name=st.sampled_from(list(WRITERS)),
    texts=st.lists(st.text(min_size=1) | st.text('",\n\r[]{}\\ \ufeff\u2028é😀', min_size=1), min_size=1, max_size=9),
    first=st.integers(0, 9),
    chunk_bytes=st.integers(1, 200),
    begins_with_bom=st.booleans(),
    crlf=st.booleans(),
)
def test_no_sign_of_a_text_is_lost(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    texts: list[str],
    first: int,
    chunk_bytes: int,
    begins_with_bom: bool,
    crlf: bool,
) -> None:
    content = WRITERS[name](records_of(texts))
    if crlf and "json" in name:
        content = content.replace(b"\n", b"\r\n")  # those inside texts are written \n
    if begins_with_bom and name.endswith(("json", "jsonl", "csv", "tsv")):
        content = b"\xef\xbb\xbf" + content
    path = write(tmp_path_factory.getbasetemp() / "signs", name, content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_formats, "CHUNK_BYTES", chunk_bytes)
        assert read(corpus_of(path), first=first) == texts[first:]


@given(text=st.text(min_size=1))
def test_a_text_file_is_its_text(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = write(tmp_path_factory.getbasetemp() / "whole", "text.txt", b"\xef\xbb\xbf" + text.encode())
    assert read(corpus_of(path)) == [text]


def test_a_place_is_where_the_record_begins(tmp_path: Path) -> None:
    """Blank lines count, and so do the lines of a text that has several."""
    texts = [f"<{n}>" + "\na line\n\nanother" * (n % 4) for n in range(20)]
    for name, write_records in WRITERS.items():
        content = write_records(records_of(texts))
        if name.startswith("lines"):
            content = content.replace(b'{"n": 5', b' \n\r\n\n{"n": 5')
        corpus = corpus_of(write(tmp_path, name, content))
        where = [place for chunk in corpus.chunks(0, 0) for place, _ in corpus.documents(0, chunk)]
        if name.endswith(("parquet", "arrow")):
            assert where == [f"{name}, row {n + 1}" for n in range(20)]
        else:  # a record of the indented array begins two lines before its body
            before = [content[: content.index(f"<{n}>".encode())].count(b"\n") for n in range(20)]
            of = [f" (record {n + 1})" if name in ("array.json", "indented.json") else "" for n in range(20)]
            up = 2 if name == "indented.json" else 0
            assert where == [f"{name}, line {lines + 1 - up}{of[n]}" for n, lines in enumerate(before)]


@pytest.mark.parametrize("compression", [".gz", ".bz2", ".xz"])
def test_archives_joined_by_cat_are_read_to_their_end(compression: str, tmp_path: Path) -> None:
    first, second = (COMPRESSIONS[compression](_lines(records_of([text]))) for text in ("one", "two"))
    path = tmp_path / f"joined.jsonl{compression}"
    path.write_bytes(first + second)
    assert read(corpus_of(path)) == ["one", "two"]


def test_archives_of_several_members(texts: list[str], tmp_path: Path) -> None:
    """As `cat a.gz b.gz` makes them; a member may end where a read ends."""
    lines = _lines(records_of(texts)).splitlines(keepends=True)
    padding = bytes([32]) * ((1 << 16) - 23 - 1) + b"\n"  # blank lines; stored, the member has 65536 bytes
    member = gzip.compress(padding, 0)
    assert len(member) == 1 << 16
    path = tmp_path / "members.jsonl.gz"
    path.write_bytes(member * 2 + b"".join(gzip.compress(line) for line in lines) + gzip.compress(b"") + member)
    assert read(corpus_of(path)) == texts
    assert read(corpus_of(path), first=2 + 7) == texts[7:]


def test_a_chunk_carries_only_its_own_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes to the workers is as much as was read, however large the batches of the file are."""
    records = records_of(f"{n} " * 1000 for n in range(300))
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, SCHEMA) as writer:
        writer.write_batch(pa.RecordBatch.from_pylist(records, SCHEMA))
    corpus = corpus_of(write(tmp_path, "one_batch.arrow", sink.getvalue()))
    monkeypatch.setattr(file_formats, "CHUNK_BYTES", 50_000)
    sizes = [len(pickle.dumps(chunk)) for chunk in corpus.chunks(0, 0)]
    assert len(sizes) > 10
    assert sum(sizes) < 1.2 * len(sink.getvalue())


def test_what_a_path_means(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a/c.txt", "a/B.JSON.GZ", "a/.hidden.txt", "a/picture.png", "a/b/c.txt", "notes"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")

    def found(pattern: str) -> list[str]:
        files = find_local_files(str(tmp_path / pattern))
        assert all(Path(url).is_file() for url in files.values())
        return list(files)

    assert found("") == ["a/B.JSON.GZ", "a/b/c.txt", "a/c.txt", "b.jsonl"]
    assert found("a/c.txt") == found("a/c*") == ["c.txt"]
    assert found("**/c.txt") == [str(tmp_path / "a/b/c.txt"), str(tmp_path / "a/c.txt")]  # one name is not enough


def _json_lines(content: bytes) -> Records:
    return [json.loads(line) for line in content.decode().split("\n") if line]


def _question(record: dict[str, str]) -> str:
    return record["instruction"] + ("\n\n" + record["input"] if record["input"] else "")


@pytest.mark.parametrize(
    ("pattern", "fields"),
    [
        ("c4/*.json.gz", {"text": "text"}),
        ("c4/*.jsonl", {"text": "text"}),
        ("cosmopedia", {"text": "text"}),
        ("fineweb*/*.jsonl", {"text": "text"}),
        ("alpaca/alpaca_5000.json", ALPACA),
        ("python_instruct/code_alpaca_2k.json", ALPACA),
    ],
)
def test_real_files_against_the_standard_library(pattern: str, fields: dict[str, str], shared_data: Path) -> None:
    corpus = corpus_of(shared_data / pattern, fields)
    for number, url in enumerate(find_local_files(str(shared_data / pattern)).values()):
        content = Path(url).read_bytes()
        content = gzip.decompress(content) if url.endswith(".gz") else content
        records = json.loads(content) if fields == ALPACA else _json_lines(content)
        expected = [
            r["text"]
            if fields != ALPACA
            else [{"role": "user", "content": _question(r)}, {"role": "assistant", "content": r["output"]}]
            for r in records
        ]
        assert read(corpus, file=number) == expected
        assert read(corpus, file=number, first=len(expected) - 3) == expected[-3:]
