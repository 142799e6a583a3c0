"""Real text of this machine, in files of four kinds."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_modules.corpora import TextOrConversation
from tests.conftest import CORPORA

FIELDS = {"texts": {"text": "text"}, "chat": {"messages": "messages"}}
LIBRARY = Path(json.__file__).parent.parent


def pieces_of_code(n: int, *, characters: int = 3000) -> list[str]:
    """The standard library, piece by piece, no two of them equal."""
    pieces: dict[str, None] = {}
    for path in sorted(LIBRARY.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        pieces |= dict.fromkeys(text[start : start + characters] for start in range(0, len(text), characters))
    assert len(pieces) >= n
    return list(pieces)[:n]


def write_jsonl(path: Path, documents: Sequence[TextOrConversation]) -> None:
    path.write_text("".join(json.dumps(row(document)) + "\n" for document in documents), encoding="utf-8")


def row(document: TextOrConversation) -> dict[str, TextOrConversation]:
    return {"text" if isinstance(document, str) else "messages": document}


def write_four_files(folder: Path, documents: Sequence[TextOrConversation]) -> Path:
    """A quarter in each, in order; each begins with the first three documents once more."""
    folder.mkdir(parents=True)
    size = len(documents) // 4
    quarters = [[*documents[:3], *documents[n * size : (n + 1) * size]] for n in range(4)]
    write_jsonl(folder / "a.jsonl", quarters[0])
    write_jsonl(folder / "b.jsonl", quarters[1])
    (folder / "b.jsonl.gz").write_bytes(gzip.compress((folder / "b.jsonl").read_bytes(), mtime=0))
    (folder / "b.jsonl").unlink()
    pq.write_table(pa.Table.from_pylist(list(map(row, quarters[2]))), folder / "c.parquet", row_group_size=50)
    (folder / "d.json").write_text(json.dumps(list(map(row, quarters[3])), indent=1), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def corpora_in_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`texts`, `chat` and `few_chat`."""
    root: Path = tmp_path_factory.mktemp("corpora")
    chat = list(CORPORA["docstrings"]())
    write_four_files(root / "texts", pieces_of_code(200))
    write_four_files(root / "chat", chat)
    write_four_files(root / "few_chat", chat[:16])
    return root
