"""What the tests of wrong records share: small files of each format, and a reader that collects what is reported."""

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_modules.corpora import BadRecord, FileCorpus, find_local_files

GOOD = b'{"text": "good"}\n'
TAIL = ". The file cannot be read beyond this point, so on_bad_record=skip does not help: repair or replace the file."
LIMIT = "it must have at most 1.0 MB (max_record_mb)"


def corpus_of(path: Path, *, field: str = "text") -> FileCorpus:
    return FileCorpus(find_local_files(str(path)), fields={"text": field}, origin={}, max_record_mb=1)


def read(corpus: FileCorpus, *, good: list[str] | None = None) -> list[str]:
    """What is said of the bad records; the others are added to `good`."""
    said = []
    for chunk in corpus.chunks(0, 0):
        for where, document in corpus.documents(0, chunk):
            if isinstance(document, BadRecord):
                said.append(f"{where}: {document}")
            elif good is not None:
                assert isinstance(document, str)
                good.append(document)
    return said


def parquet(values: list[Any] | pa.Array, *, column: str = "text", row_group_size: int = 2) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({column: values}), sink, row_group_size=row_group_size)
    return sink.getvalue()


def arrow(values: list[Any] | pa.Array) -> bytes:
    sink = io.BytesIO()
    batch = pa.record_batch({"text": values})
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()
