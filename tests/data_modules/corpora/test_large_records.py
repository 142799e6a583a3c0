"""A record above max_record_mb is refused without being held in memory."""

import re
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data_modules.corpora.single_records import GOOD, LIMIT, TAIL, arrow, corpus_of, read


@pytest.mark.parametrize(
    "name", ["long.jsonl", "long.json", "long.jsonl.zst", "long.txt", "array.json", "wide.csv", "tall.csv"]
)
def test_a_record_of_50_mb_is_not_held(name: str, tmp_path: Path) -> None:
    """The limit is 1 MB, and so much and its copies are what memory grows by."""
    piece = b"many words " * 1000 + (b"\n" if name in ("long.txt", "tall.csv") else b"")
    with pa.output_stream(str(tmp_path / name), compression="zstd" if name.endswith("zst") else None) as file:
        begin = {"array.json": b'[\n{"text": "', "wide.csv": b'text\n"', "tall.csv": b'text\n"', "long.txt": b""}
        file.write(begin.get(name, b'{"text": "'))
        for _ in range(50_000_000 // len(piece)):
            file.write(piece)
        end = {"array.json": b'"}]', "wide.csv": b'"\n', "tall.csv": b'"\n', "long.txt": b""}
        file.write(end.get(name, b'"}\n' + GOOD))
    good: list[str] = []
    tracemalloc.start()
    try:
        said = read(corpus_of(tmp_path / name), good=good)
    except ValueError as error:
        said = [str(error)]
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 20e6
    expected = {
        "array.json": f"{name}, line 2 (record 1): it is longer than 1.0 MB, or not JSON (Unterminated string ",
        "wide.csv": f"{name}, line 2: it is not a valid CSV record (the line is longer than 1.0 MB){TAIL}",
        "tall.csv": f"{name}, line 2: it is not a valid CSV record (field larger than field limit (1000000)){TAIL}",
    }
    where = "" if name == "long.txt" else ", line 1"
    assert said[0].startswith(expected.get(name, f"{name}{where}: the record has 50.0 MB: {LIMIT}"))
    assert len(said) == 1
    assert good == (["good"] if name.startswith("long.j") else [])


def decoded_mb(path: Path) -> float:
    """What reading a file holds at most in arrays, after the limit of 1 MB a record."""
    before, most = pa.total_allocated_bytes(), 0
    corpus = corpus_of(path)
    for chunk in corpus.chunks(0, 0):
        most = max(most, pa.total_allocated_bytes() - before)
        documents = [document for _, document in corpus.documents(0, chunk)]
        assert sum(len(document) for document in documents if isinstance(document, str)) < 3e6
    return most / 1e6


@pytest.mark.parametrize("n_rows", [3, 1000])
def test_a_parquet_record_far_above_the_limit_is_not_decoded(n_rows: int, tmp_path: Path) -> None:
    """A few kilobytes can describe hundreds of megabytes; rows beside it do not hide it."""
    path = tmp_path / "bomb.parquet"
    values = ["good"] * (n_rows - 1) + ["x" * 50_000_000]
    pq.write_table(pa.table({"text": values, "other": values}), path, compression="zstd")
    assert path.stat().st_size < 13_000
    before, good = pa.total_allocated_bytes(), []  # type: ignore[var-annotated]
    said = f"bomb.parquet, rows 1 to {n_rows:,}: 50.0 MB are compressed to 0.00"
    with pytest.raises(ValueError, match=re.escape(said)) as refused:
        read(corpus_of(path), good=good)
    assert str(refused.value).endswith(f"which indicates a record of more than the 1.0 MB of max_record_mb{TAIL}")
    assert pa.total_allocated_bytes() - before < 1e6


@pytest.mark.parametrize("kind", ["plain", "pandas categories", "arrow"])
def test_a_value_that_many_rows_share_is_decoded_for_a_few_at_once(kind: str, tmp_path: Path) -> None:
    values: Any = pa.array([f"{n} " * 100_000 for n in range(5)]).take(pa.array([n % 5 for n in range(400)]))
    if kind != "plain":
        values = values.dictionary_encode()
    path = tmp_path / f"shared.{'arrow' if kind == 'arrow' else 'parquet'}"
    if kind == "arrow":
        path.write_bytes(arrow(values))
    else:
        pq.write_table(pa.table({"text": values}), path, compression="zstd")
    del values
    assert decoded_mb(path) < 12
    good: list[str] = []
    assert read(corpus_of(path), good=good) == []
    assert [text[:2] for text in good] == [f"{n % 5} " for n in range(400)]
