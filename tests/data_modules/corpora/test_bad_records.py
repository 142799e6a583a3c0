"""What is wrong in a file is said in one sentence that names the place, and hurts no record beside it."""

import gzip
import io
import json
import lzma
import re
import struct
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_modules.corpora import FileCorpus, file_formats, find_local_files
from tests.data_modules.corpora.single_records import GOOD, LIMIT, TAIL, arrow, corpus_of, parquet, read


def array(*records: bytes) -> bytes:
    return b"[\n" + b",\n".join(records) + b"\n]\n"


NOT_UTF8 = pa.Array.from_buffers(  # good, caf\xe9, good
    pa.string(), 3, [None, pa.py_buffer(b"\0\0\0\0\4\0\0\0\10\0\0\0\14\0\0\0"), pa.py_buffer(b"goodcaf\xe9good")]
)
DAMAGED = "row 2: the row is damaged or not UTF-8 (In column 0: Invalid: Invalid UTF8 sequence at string index 0)"
BAD = {  # of each file the second record is bad, and the two beside it are good
    "malformed.jsonl": (
        GOOD + b'{"text": "a" "b"}\n' + GOOD,
        "line 2: it is not JSON (Expecting ',' delimiter at character 14 of the line)",
    ),
    "cut.json": (
        GOOD + b'{"text": "a\n' + GOOD,
        "line 2: it is not JSON (Invalid control character at character 12 of the line)",
    ),
    "lacking.jsonl": (
        GOOD + b'{"url": 1, "body": 2}\n' + GOOD,
        "line 2: the field 'text' is missing; the record has url, body",
    ),
    "nothing.jsonl": (GOOD + b"{}\n" + GOOD, "line 2: the field 'text' is missing; the record has none"),
    "null.jsonl": (GOOD + b'{"text": null}\n' + GOOD, "line 2: the field 'text' is null: it must have a value"),
    "number.jsonl": (GOOD + b'{"text": 3}\n' + GOOD, "line 2: the field 'text' is of type int: it must be a string"),
    "list.jsonl": (GOOD + b"[1]\n" + GOOD, "line 2: the record is of type list: it must have the fields text"),
    "empty.jsonl": (GOOD + b'\n{"text": ""}\n' + GOOD, "line 3: the field 'text' is empty"),
    "bytes.jsonl": (
        GOOD + b'{"text": "caf\xe9"}\n' + GOOD,
        "line 2: it is not UTF-8 (byte 14 of the line is 0xe9)",
    ),
    "half.jsonl": (
        GOOD + b'{"text": "\\ud83d."}\n' + GOOD,
        r"line 2: the field 'text' contains half a surrogate pair, '\ud83d'",
    ),
    "deep.jsonl": (
        GOOD + b"[" * 200_000 + b"\n" + GOOD,
        "line 2: it is not JSON (maximum recursion depth exceeded",
    ),
    "digits.jsonl": (
        GOOD + b"1" * 5000 + b"\n" + GOOD,
        "line 2: it is not JSON (Exceeds the limit (4300 digits) for integer string conversion",
    ),
    "bytes.json": (
        array(GOOD, b'{"text":\n"caf\xe9"}', GOOD),
        "line 4 (record 2): the field 'text' is not UTF-8: it contains the byte 0xe9",
    ),
    "twice.jsonl": (
        GOOD + b'{"text": "right", "n": 1, "text": "wrong"}\n' + GOOD,
        "line 2: it has the field 'text' twice",
    ),
    "twice.json": (
        array(GOOD, b'{"text": "right", "text": "wrong"}', GOOD),
        "line 4 (record 2): it has the field 'text' twice",
    ),
    "null.json": (
        array(GOOD, b'{"text": null}', GOOD),
        "line 4 (record 2): the field 'text' is null: it must have a value",
    ),
    "long.json": (
        array(GOOD, json.dumps({"text": "x" * 1_000_000}).encode(), GOOD),
        f"line 4 (record 2): the record has 1.0 MB: {LIMIT}",
    ),
    "bytes.csv": (
        b"n,text\n1,good\n2,caf\xe9\n3,good\n",
        "line 3: the field 'text' is not UTF-8: it contains the byte 0xe9",
    ),
    "more.csv": (
        b'n,text\n1,good\n2,"a\nb",c\n3,good\n',
        "line 3: it has 3 fields, but the header line has 2",
    ),
    "fewer.csv": (b"n,text\n1,good\n2\n3,good\n", "line 3: it has 1 fields, but the header line has 2"),
    "empty.csv": (b"n,text\n1,good\n2,\n3,good\n", "line 3: the field 'text' is empty"),
    "null.parquet": (parquet(["good", None, "good"]), "row 2: the field 'text' is null: it must have a value"),
    "bytes.parquet": (
        parquet(NOT_UTF8),
        DAMAGED,
    ),
    "empty.arrow": (arrow(["good", "", "good"]), "row 2: the field 'text' is empty"),
    "bytes.arrow": (
        arrow(NOT_UTF8),
        DAMAGED,
    ),
    "long.arrow": (arrow(["good", "x" * 1_000_001, "good"]), f"row 2: the record has 1.0 MB: {LIMIT}"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_record_stands_alone(name: str, tmp_path: Path) -> None:
    content, said = BAD[name]
    (tmp_path / name).write_bytes(content)
    good: list[str] = []
    found = read(corpus_of(tmp_path / name), good=good)
    assert [sentence[: len(name) + 2 + len(said)] for sentence in found] == [f"{name}, {said}"]
    assert good == ["good", "good"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "numbers.parquet",
            parquet([1.5]),
            "numbers.parquet, row 1: the field 'text' is of type float: it must be a string",
        ),
        (
            "raw.parquet",
            parquet([b"raw"]),
            "raw.parquet, row 1: the field 'text' is of type bytes: it must be a string",
        ),
        ("a.txt", b"\xef\xbb\xbfone\ntwo \xff", "a.txt, line 2: it is not UTF-8 (byte 12 of the file is 0xff)"),
        ("bom.md", b"\xef\xbb\xbf", "bom.md, line 1: the text is empty"),
        ("one_record.json", b'{\n "text": "a"}', "one_record.json, line 1: it is not JSON (Expecting property name "),
        *((f"void{suffix}", b"", f"void{suffix}: the file is empty") for suffix in file_formats.FORMATS),
        *(
            (f"void{suffix}.gz", gzip.compress(b"", mtime=0), f"void{suffix}.gz: the file is ")
            for suffix in file_formats.FORMATS
        ),
    ],
)
def test_a_file_may_be_bad_from_its_beginning(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert read(corpus_of(tmp_path / name))[0].startswith(said)


def test_damaged_offsets_do_not_end_the_process(tmp_path: Path) -> None:
    offsets = struct.pack("<5i", 0, 4, 2**31 - 1, 8, 12)
    damaged = pa.Array.from_buffers(pa.string(), 4, [None, pa.py_buffer(offsets), pa.py_buffer(b"good" * 3)])
    (tmp_path / "damaged.arrow").write_bytes(arrow(damaged))
    good: list[str] = []
    said = read(corpus_of(tmp_path / "damaged.arrow"), good=good)
    assert [sentence.split(" (")[0] for sentence in said] == [
        f"damaged.arrow, row {n}: the row is damaged or not UTF-8" for n in (2, 3)
    ]
    assert good == ["good", "good"]


def twice(form: str) -> bytes:
    sink, table = io.BytesIO(), pa.Table.from_arrays([pa.array([text]) for text in "abc"], names=["text", "n", "text"])
    if form == "parquet":
        pq.write_table(table, sink)
    else:
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    return sink.getvalue()


TWICE = {
    ".csv": b"text,n,text\nright,x,wrong\n",
    ".tsv": b"text\tn\ttext\nright\tx\twrong\n",
    ".parquet": twice("parquet"),
    ".arrow": twice("arrow"),
}
CUT = " cannot be read completely: Truncated compressed stream."
LINES = b"".join(b'{"text": "good %s"}\n' % sha256(b"%d" % n).hexdigest().encode() for n in range(30_000))


def compressed(kind: str) -> bytes:
    with pa.BufferOutputStream() as sink:
        with pa.CompressedOutputStream(sink, kind) as file:
            file.write(LINES)
        return bytes(sink.getvalue())


@pytest.mark.parametrize(
    ("name", "content", "n_good", "said"),
    [
        ("cut.jsonl.gz", compressed("gzip")[:-5000], 10_000, CUT),
        ("tail.jsonl.gz", compressed("gzip")[:-1], 10_000, CUT),
        ("cut.jsonl.zst", compressed("zstd")[:-1], 10_000, CUT),
        ("cut.jsonl.bz2", compressed("bz2")[:-1], 10_000, CUT),
        (
            "cut.jsonl.xz",
            lzma.compress(LINES, preset=0)[:-1],
            10_000,
            " cannot be read completely: Compressed file ended before ",
        ),
        ("plain.jsonl.xz", GOOD, 0, " cannot be read completely: Input format not supported by decoder."),
        ("cut.parquet.gz", compressed("gzip")[:-5000], 0, CUT),
        ("plain.jsonl.gz", GOOD, 0, " cannot be read completely: zlib inflate failed: incorrect header check."),
        ("plain.jsonl.zst", GOOD, 0, " cannot be read completely: ZSTD decompress failed: Unknown frame descriptor."),
        ("comma.json", array(GOOD, GOOD + GOOD), 2, ", line 5: a comma is missing after record 2" + TAIL),
        ("open.json", b"[" + GOOD + b"\n", 1, ", line 3: the file ends inside its array, after record 1" + TAIL),
        (
            "quotes.json",
            array(GOOD, b'{"text":\n\n"a" "b"}', GOOD),
            1,
            ", line 4 (record 2): it is not JSON (Expecting ',' delimiter)" + TAIL,
        ),
        (
            "digits.json",
            array(GOOD, b'{"n":' + b"1" * 5000 + b"}"),
            1,
            ", line 4 (record 2): it is not JSON (Exceeds the limit (4300 digits) ",
        ),
        (
            "last_comma.json",
            b"[" + GOOD + b", ]",
            1,
            ", line 2 (record 2): it is not JSON (Expecting value)" + TAIL,
        ),
        ("two.json", array(GOOD) + array(GOOD), 1, ", line 5: there is more text after the end of the array" + TAIL),
        (
            "open.csv",
            b'text\ngood\n"a\nb\n',
            1,
            ", line 3: it is not a valid CSV record (unexpected end of data)" + TAIL,
        ),
        (
            "quotes.csv",
            b'text\ngood\n"a"b\n',
            1,
            """, line 3: it is not a valid CSV record (',' expected after '"')""" + TAIL,
        ),
        (
            "other.csv",
            b"a,b\n1,2\n",
            0,
            ": the column 'text' is missing; the file has a, b (to read another field: fields.text=…).",
        ),
        (
            "other.parquet",
            parquet(["a"], column="body"),
            0,
            ": the column 'text' is missing; the file has body (to read another field: fields.text=…).",
        ),
        *(
            (
                f"twice{suffix}",
                content,
                0,
                ": there are 2 columns 'text': names must be unique, so rename the others.",
            )
            for suffix, content in TWICE.items()
        ),
        (
            "no.parquet",
            b"no parquet at all",
            0,
            " cannot be read completely: Parquet magic bytes not found in footer. ",
        ),
        ("cut.parquet", parquet(["a"])[:-9], 0, " cannot be read completely: "),
        ("no.arrow", b"no arrow at all", 0, " cannot be read completely: "),
    ],
)
def test_a_file_that_cannot_be_read_on(
    name: str, content: bytes, n_good: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands before is read all the same, so that it was not in vain when the rest is repaired."""
    monkeypatch.setattr(file_formats, "CHUNK_BYTES", 1)
    (tmp_path / name).write_bytes(content)
    good: list[str] = []
    with pytest.raises(ValueError, match=re.escape(name + said)) as refused:
        read(corpus_of(tmp_path / name), good=good)
    assert str(refused.value).count("\n") == 0
    assert n_good <= len(good) <= (n_good if n_good < 10_000 else 30_000)
    assert all(text.startswith("good") for text in good)


def test_what_is_no_file_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    known = ".jsonl .ndjson .json .csv .tsv .parquet .arrow .txt .md, each also with .gz .zst .bz2 or .xz"
    (tmp_path / "a.pdf.gz").write_bytes(b"x")
    with pytest.raises(
        ValueError, match=re.escape(f"a.pdf.gz has no supported format: its name must end in one of {known}.")
    ):
        corpus_of(tmp_path / "a.pdf.gz")
    with pytest.raises(ValueError, match=re.escape(f"path={tmp_path} has no file of a supported format ({known}).")):
        find_local_files(str(tmp_path))
    for missing in (tmp_path / "b.txt", tmp_path / "*.txt", tmp_path / "none" / "**"):
        with pytest.raises(
            ValueError,
            match=re.escape(
                f"path={missing} does not exist: it must be a file, a folder or a pattern that matches files."
            ),
        ):
            find_local_files(str(missing))
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path}/b.txt does not exist: check the path or address.")):
        FileCorpus({"b.txt": f"{tmp_path}/b.txt"}, fields={"text": "text"}, origin={}, max_record_mb=1)
