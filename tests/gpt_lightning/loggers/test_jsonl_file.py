"""Lines that cannot be written wait; none is lost, torn or written twice."""

import json
import resource
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_lightning.loggers import jsonl_file
from gpt_lightning.loggers.jsonl_file import JsonlFile, step_of_row


@contextmanager
def files_at_most(size: int) -> Iterator[None]:
    """The kernel refuses to let a file grow beyond so many bytes, in the middle of a write if need be."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_cannot_be_written_waits_and_comes_in_order(tmp_path: Path) -> None:
    lines = JsonlFile(tmp_path / "metrics.jsonl")
    rows = [f"row {n:02d}" for n in range(20)]
    with files_at_most(40):
        failures = [lines.append(row) for row in rows[:15]]
        assert [failure is None for failure in failures] == [True] * 5 + [False] * 10
        assert lines.path.read_text() == "".join(f"{row}\n" for row in rows[:5])
    for row in rows[15:]:
        assert lines.append(row) is None
    assert lines.path.read_text().splitlines() == rows
    assert not lines.waiting


def test_a_row_half_written_is_taken_back(tmp_path: Path) -> None:
    lines = JsonlFile(tmp_path / "metrics.jsonl")
    lines.append("short")
    with files_at_most(50):
        assert lines.append("x" * 200) is not None  # the kernel takes 44 bytes of it
        assert lines.path.read_text() == "short\n"
    lines.sync()
    assert lines.path.read_text() == "short\n" + "x" * 200 + "\n"


def test_a_line_that_rots_takes_no_other_with_it(tmp_path: Path) -> None:
    lines = JsonlFile(tmp_path / "metrics.jsonl")
    for step in range(1, 9):
        lines.append_row({"step": step, "note": "a\u2028b"})
    whole = lines.path.read_bytes()
    rotten = whole.replace(b'"step": 3', b'"s\xfep": 3') + b'{"step": 9, "no'
    lines.path.write_bytes(rotten)
    assert lines.cut_back(step=6) == 1
    rows = whole.splitlines(keepends=True)
    assert lines.path.read_bytes() == b"".join([*rows[:2], *rows[3:6]])
    assert lines.path.with_name("metrics.jsonl.damaged").read_bytes() == rotten
    assert lines.cut_back(step=6) == 0


def test_a_long_file_is_cut_back_line_by_line_and_its_rows_are_not_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = JsonlFile(tmp_path / "metrics.jsonl")
    rows = [json.dumps({"step": step, "train/loss": 3.5, "note": "x" * 200}) + "\n" for step in range(1, 4001)]
    torn = '{"step": 7, "train/lo{"step": 8, "train/loss": 3.5}\n'
    lines.path.write_text("".join([*rows[:2000], torn, *rows[2000:]]))
    parsed: list[bytes] = []

    def refuse(line: bytes) -> None:
        parsed.append(line)
        raise ValueError

    monkeypatch.setattr("gpt_lightning.loggers.jsonl_file._BLOCK", 1 << 14)
    monkeypatch.setattr("gpt_lightning.loggers.jsonl_file.json.loads", refuse)
    tracemalloc.start()
    try:
        assert lines.cut_back(step=3000) == 1
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert parsed == [torn.encode()]
    assert lines.path.read_text() == "".join(rows[:3000])
    assert peak < 0.5 * sum(map(len, rows))


LINES = st.one_of(
    st.fixed_dictionaries(
        {"step": st.integers(0, 12)},
        optional={"train/loss": st.floats(0, 9), "note": st.sampled_from(["", "{", '"', "\u2028", "}"])},
    ).map(json.dumps),
    st.sampled_from(
        ["", "rot", "{}", '{"step": 3, "tra', '{"step": 3, "tra{"step": 4, "train/loss": 1.5}', '{"step": 7}\0']
    ),
)


@given(
    lines=st.lists(LINES, min_size=1, max_size=12),
    end=st.sampled_from(["", "\n"]),
    block=st.sampled_from([1, 60, 1 << 22]),
)
def test_whole_blocks_are_cut_as_line_by_line(
    lines: list[str], end: str, block: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = JsonlFile(tmp_path_factory.mktemp("cut") / "metrics.jsonl")
    content = "\n".join(lines) + end
    file.path.write_text(content)
    steps = [step_of_row(line.encode()) for line in lines]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl_file, "_BLOCK", block)
        lost = file.cut_back(step=6)
    kept = [line for line, step in zip(lines, steps, strict=True) if step is not None and step <= 6]
    assert file.path.read_text() == "".join(f"{line}\n" for line in kept)
    assert lost == steps[: content.count("\n")].count(None)
