"""Reading training logs: a real one of another project, ours, and what faults make of either."""

import json
import random
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.text_logs.line_reader import MAX_LINE_BYTES
from analysis.text_logs.log_parser import read_logs
from tests.analysis.text_log_files import Account, account_of, read, write

ROOT = Path(__file__).resolve().parent.parent.parent

STEP = re.compile(rb"\[.{19}\] Step ")
LINE = b"[2025-11-18 07:15:06] Step %6d | Loss: 6.2691 | LR: 2.09e-04 | Tokens/s: 8,362 | GPU: 14.8GB | Time: 158s\n"
OUR_LINE = (
    b"[2026-11-22 02:00:01] step     77 | loss 3.4512 (3.4701) | lr 5.79e-04 | 8,362 tokens/s, MFU 41.2% | 3 min left\n"
)


@pytest.fixture(scope="session")
def real_logs(shared_data: Path) -> list[Path]:
    return sorted((shared_data / "rangeflow").glob("training_*.log"))


@pytest.fixture(scope="session")
def real_account(shared_data: Path) -> Account:
    metrics, samples = (
        json.loads((shared_data / "rangeflow" / f"expected_{name}.json").read_text()) for name in ("metrics", "samples")
    )
    return metrics, samples


def lines_of(paths: Sequence[Path]) -> list[list[bytes]]:
    return [path.read_bytes().splitlines(keepends=True) for path in paths]


def test_a_real_log_is_read_as_its_own_tool_reads_it(real_logs: list[Path], real_account: Account) -> None:
    log = read_logs(real_logs)
    assert account_of(log) == real_account
    assert (log.n_files, log.n_lines, log.n_not_understood) == (3, 480, 0)


def test_no_order_of_files_and_no_split_changes_the_account(
    real_logs: list[Path], real_account: Account, tmp_path: Path
) -> None:
    contents = lines_of(real_logs)
    chosen = random.Random(0)
    for n in range(20):
        parts: list[bytes] = []
        for lines in contents:
            cut = chosen.choice([n for n, line in enumerate(lines) if STEP.match(line)])
            parts += [b"".join(lines[:cut]), b"".join(lines[cut:])]
        chosen.shuffle(parts)
        log = read_logs(write(tmp_path / str(n), parts))
        assert account_of(log) == real_account
        assert (log.n_lines, log.n_not_understood) == (480, 0)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "one after the other"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
def test_no_encoding_changes_the_account(
    real_logs: list[Path], real_account: Account, tmp_path: Path, encoding: str, end: str
) -> None:
    def encoded(path: Path, n: int) -> bytes:
        text = path.read_text(encoding="utf-8").replace("\n", end)
        if encoding == "utf-16-be":
            return ("\ufeff" + text).encode(encoding)
        return text.encode(["utf-16", "utf-8", "utf-8-sig"][n] if encoding == "one after the other" else encoding)

    log = read(tmp_path, *(encoded(path, n) for n, path in enumerate(real_logs)))
    assert account_of(log) == real_account
    assert log.n_not_understood == 0


def test_letters_of_another_encoding_stay_letters(tmp_path: Path) -> None:
    """Also a line of UTF-16 in a file of UTF-8 keeps its figures, and NUL bytes part what was written apart."""
    log = read(
        tmp_path,
        LINE % 10
        + "[2025-11-18 07:15:06] 📝 SAMPLES\n[2025-11-18 07:15:07] Un café → noir ou".encode()
        + " crème, “ou pas”\n".encode("cp1252")
        + b"=" * 60
        + b"\n"
        + (LINE % 20).decode().encode("utf-16")
        + bytes(4096)
        + LINE % 30
        + (LINE % 40)[:50]
        + bytes(7)
        + LINE % 50,
    )
    assert log.steps.series("loss")[0].tolist() == [10, 20, 30, 50]
    sample = {"prompt": "Un café", "response": "noir ou crème, “ou pas”", "timestamp": "2025-11-18 07:15:07"}
    assert log.samples[10]["samples"] == [sample]
    assert log.n_not_understood == 1


rubbish = st.one_of(
    st.binary(min_size=1, max_size=40).map(lambda some: b"\xff!" + some.replace(b"\n", b"")),
    st.integers(23, len(LINE) - 2).map(lambda end: (LINE % 77)[:end]),  # half a line, with its timestamp
    st.integers(1, len(LINE) - 2).map(lambda start: (LINE % 77)[start:-1]),
    st.integers(1, len(LINE) - 2).map(lambda end: (LINE % 77)[:end] + (LINE % 78)[:-1]),  # two writers
    st.sampled_from([bytes(100), b"saved a.pt", "[2025-11-18 07:15:06] ── samples at step , ──".encode()]),
)


@given(inserted=st.lists(st.tuples(st.integers(0, 255), rubbish), max_size=12))
def test_rubbish_changes_the_count_and_nothing_else(
    real_logs: list[Path], tmp_path_factory: pytest.TempPathFactory, inserted: list[tuple[int, bytes]]
) -> None:
    contents = lines_of(real_logs)
    steps = [(lines, line) for lines in contents for line in lines if STEP.match(line)]
    for n, line in inserted:
        lines, place = steps[n]
        lines.insert(lines.index(place) + 1, line + b"\n")
    log = read_logs(write(tmp_path_factory.mktemp("rubbish"), [b"".join(lines) for lines in contents]))
    assert account_of(log) == account_of(read_logs(real_logs))
    assert log.n_not_understood == len(inserted)
    assert bool(inserted) == bool(re.match(r"line \d+ of .*training_\d\.log, ['\"]", log.first_not_understood))


@pytest.mark.parametrize("line", [LINE % 77, OUR_LINE], ids=["another project's", "ours"])
def test_half_a_line_is_no_remark_wherever_it_is_cut(tmp_path: Path, line: bytes) -> None:
    halves = [line[:end] + b"\n" for end in range(23, len(line) - 6)]
    log = read(tmp_path, b"".join(halves))
    assert (log.n_not_understood, len(log.steps)) == (len(halves), 0)


def test_a_last_line_without_end_counts_if_it_is_whole(tmp_path: Path) -> None:
    whole = (LINE % 20)[:-1]
    assert len(read(tmp_path, LINE % 10 + whole).steps) == 2
    torn = read(tmp_path, LINE % 10 + whole[:-1])
    assert (len(torn.steps), torn.n_not_understood) == (1, 1)


def test_a_line_that_never_ends_is_one_that_is_not_understood(tmp_path: Path) -> None:
    whole, sample = LINE % 10, "[2025-11-18 07:15:06] 📝 SAMPLES\n[2025-11-18 07:15:07] Once → upon\n".encode()
    paths = write(
        tmp_path,
        [
            whole + sample + (b"x" * 99 + b"\xff") * 400_000 + b"\n" + LINE % 20,
            LINE % 30 + sample + b"upon a time\n" * 10_000,
        ],
    )
    tracemalloc.start()
    log = read_logs(paths)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert log.steps.series("loss")[0].tolist() == [10, 20, 30]
    assert log.samples[10]["samples"][0]["response"] == "upon"
    assert MAX_LINE_BYTES - 20 < len(log.samples[30]["samples"][0]["response"]) < MAX_LINE_BYTES + 20
    assert log.n_not_understood == 1 + 10_000 - MAX_LINE_BYTES // len("upon a time\n")
    assert peak < 10e6


def test_a_million_lines_are_read_in_seconds_and_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "training_1.log"
    with path.open("wb") as file:
        for n in range(1_000_000):
            line = LINE % n
            faults = (line[: 23 + n % 70], line[30:-1], "déjà vu".encode("cp1252"), bytes(80))
            file.write(line if n % 100 else faults[n // 100 % 4] + b"\n")
    script = f"""
import re, time
from pathlib import Path
from analysis.text_logs.log_parser import read_logs
log = read_logs([Path({str(path)!r})])
peak = re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]
print(len(log.steps), log.n_not_understood, time.process_time(), peak)
"""
    command = [sys.executable, "-c", script]
    said = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True).stdout
    steps, not_understood, seconds, kilobytes = map(float, said.split())
    assert (steps, not_understood) == (990_000, 10_000)
    assert seconds < 20  # 4 on a machine with nothing else to do
    assert kilobytes < 300e3


def test_a_later_block_of_samples_wins_unless_nothing_of_it_is_left(tmp_path: Path) -> None:
    block = "{line}[2025-11-18 {time}] 📝 SAMPLES\n[2025-11-18 {time}] Once → {response}\n".format
    line = (LINE % 10).decode()
    early, late = (block(line=line, time=time, response=time) for time in ("07:15:06", "08:15:06"))
    torn = line + "[2025-11-18 09:15:06] 📝 SAMPLES\n"
    for contents in ([early, late, torn], [torn, late, early]):
        assert read(tmp_path, *contents).samples[10]["samples"][0]["response"] == "08:15:06"
    assert read(tmp_path, early.removeprefix(line)).n_not_understood == 1  # samples of no step
