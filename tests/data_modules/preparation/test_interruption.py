"""Killed, starved or shared among workers: the bytes are the same."""

import multiprocessing
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from data_modules import SourceShards
from data_modules.corpora.corpus import Chunk
from data_modules.preparation import PreparationProgress
from data_modules.preparation.parallel_tokenization import encode_in_order
from tests.conftest import ROOT
from tests.data_modules.preparation.conftest import FIELDS
from tests.data_modules.preparation.preparation_process import (
    Job,
    LongAnswers,
    alone,
    command,
    contents,
    is_whole_or_absent,
)

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "texts": ("texts", {}),
    "texts without duplicates": ("texts", {"deduplicate": "exact"}),
    "chat": ("chat", {}),
}


def job(corpora: Path, name: str, folder: Path, **recipe: Any) -> Job:
    """Two groups of files, several shards in each."""
    path, fields = corpora / name, FIELDS[name.removeprefix("few_")]
    half = sum(file.stat().st_size for file in path.glob("[ab].*")) / 1e6
    shard_tokens = 250 if name.startswith("few_") else 10_000
    return Job(str(path), str(folder), fields, recipe={"shard_tokens": shard_tokens} | recipe, group_mb=half)


@contextmanager
def begun(job: Job) -> Iterator[psutil.Popen]:
    """A process that is at work on a job, in a group of its own, and has committed something of it."""
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with psutil.Popen(command("prepared", job), cwd=ROOT, start_new_session=True, **streams) as process:
        try:
            deadline = time.monotonic() + 30
            while not job.records:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield process
        finally:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def prepared_in_one_go(job: Job) -> dict[str, str]:
    """The files of several shards of each split and group, as nobody disturbed them."""
    information = job.prepare()
    splits = information["splits"]
    assert len(splits["train"]["shards"]) >= 3
    assert splits["val"]["shards"]
    assert splits["train"]["masked"] == ("messages" in job.fields)
    assert information["duplicates"] == {"count": 12, "removed": job.recipe.get("deduplicate") == "exact"}
    assert len(information["files"]) == 4
    return contents(Path(job.folder))


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_random_moments(kind: str, corpora_in_files: Path, tmp_path: Path) -> None:
    name, recipe = KINDS[kind]
    killed = replace(job(corpora_in_files, name, tmp_path / "killed" / "source", **recipe), pause=0.005)
    in_one_go = prepared_in_one_go(replace(killed, folder=str(tmp_path / "source"), pause=0))
    starts = alone("killed_at_random", killed, SourceShards(tmp_path / "source").information["records"])
    assert sum(start["killed"] for start in starts) >= 6
    assert sum(start["began_at"] > 0 for start in starts) >= 3
    assert [start["began_at"] for start in starts] == sorted(start["began_at"] for start in starts)
    assert all(start["whole_or_absent"] for start in starts)
    assert contents(Path(killed.folder)) == in_one_go
    assert [path.name for path in (tmp_path / "killed").iterdir()] == ["source"]
    assert SourceShards(Path(killed.folder)).fingerprint == SourceShards(tmp_path / "source").fingerprint


def test_stopped_before_any_operation_on_a_file(corpora_in_files: Path, tmp_path: Path) -> None:
    """There is no moment at which a kill or a full disk could do harm, not in the join either."""
    stopped = job(corpora_in_files, "few_chat", tmp_path / "stopped", deduplicate="exact")
    prepared_in_one_go(replace(stopped, folder=str(tmp_path / "one" / "source")))
    stops = alone("stopped_at_each", stopped)
    assert len(stops) > 50
    assert {stop["status"] for stop in stops} == {signal.SIGKILL, 1 << 8, 0}  # 0: only something to be tidied up failed
    for number, stop in enumerate(stops):
        assert stop["whole_or_absent"], number
        assert stop["contents"] == contents(tmp_path / "one"), number


def test_any_number_of_workers(corpora_in_files: Path, tmp_path: Path) -> None:
    one = job(corpora_in_files, "chat", tmp_path / "1" / "source")
    in_one_go = prepared_in_one_go(one)
    for workers in (2, 4):
        folder = tmp_path / str(workers) / "source"
        replace(one, folder=str(folder), workers=workers).prepare()
        assert contents(folder) == in_one_go


def test_workers_are_stopped_whatever_they_do() -> None:
    """Even in the middle of a long answer, which nobody is left to read."""
    numbers = iter(range(1000))
    chunks = ((0, Chunk(bytes(1 << 20), number, number + 1, 0)) for number in numbers)
    answers = encode_in_order(LongAnswers(), chunks, workers=2)
    assert [next(answers)[1].first for _ in range(8)] == list(range(8))
    assert next(numbers) <= 8 + 2 * 2  # no more are under way
    assert len(multiprocessing.active_children()) == 2
    begin = time.monotonic()
    answers.close()
    assert time.monotonic() - begin < 5
    assert not multiprocessing.active_children()


def test_a_killed_worker_is_reported(corpora_in_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = job(corpora_in_files, "chat", tmp_path / "one" / "source")
    two = replace(one, folder=str(tmp_path / "two" / "source"), workers=2)
    one.prepare()
    monkeypatch.setattr("data_modules.preparation.resumable_part.COMMIT_SECONDS", -1.0)
    monkeypatch.setattr("data_modules.corpora.file_formats.CHUNK_BYTES", 1 << 12)

    def kill_one(progress: PreparationProgress) -> None:
        for worker in multiprocessing.active_children()[:1]:
            worker.kill()

    with pytest.raises(
        ValueError, match="one of the 2 workers was killed, possibly because memory ran out: start the same"
    ):
        two.parts().prepare_all(workers=2, progress=kill_one)
    assert two.records > 0
    two.prepare()
    assert contents(Path(two.folder)) == contents(Path(one.folder))


def test_who_is_killed_leaves_neither_workers_nor_a_lock(corpora_in_files: Path, tmp_path: Path) -> None:
    """And while it lives, nobody else is let in. Who goes on may have another number of workers."""
    slow = replace(job(corpora_in_files, "texts", tmp_path / "slow" / "source"), workers=2, pause=0.2)
    refused = replace(slow, workers=1, pause=0)
    in_one_go = prepared_in_one_go(replace(refused, folder=str(tmp_path / "source")))
    with begun(slow) as process:
        workers = process.children(recursive=True)
        assert len(workers) >= 2
        for enter in (refused.prepare, refused.parts().join):
            with pytest.raises(
                ValueError,
                match=f"is being prepared by process {process.pid} on .* since .*: wait until that process ends",
            ):
                enter()
        with pytest.raises(ValueError, match=f"0_of_1 is being prepared by process {process.pid} on"):
            refused.parts().prepare(0, workers=1, progress=print)
        assert process.is_running()
        process.kill()
        _, alive = psutil.wait_procs(workers, timeout=10)
        assert not alive
    assert refused.records > 0
    assert not Path(slow.folder).exists()
    refused.prepare()
    assert contents(Path(slow.folder)) == in_one_go


def test_an_interrupt_ends_all_at_once(corpora_in_files: Path, tmp_path: Path) -> None:
    """Ctrl-C reaches every process of the terminal; only the first says so."""
    slow = replace(job(corpora_in_files, "texts", tmp_path / "source"), workers=2, pause=0.2)
    with begun(slow) as process:
        workers = process.children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=10)
        _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive
    assert process.returncode == -signal.SIGINT
    assert said.decode().count("Traceback") == 1


def test_who_is_refused_takes_nothing_away(corpora_in_files: Path, tmp_path: Path) -> None:
    """Not even from one that has nothing committed yet; nor may parts of another number begin beside it."""
    first = job(corpora_in_files, "few_chat", tmp_path / "source")

    def interrupt(progress: Any) -> None:
        with pytest.raises(ValueError, match=f"is being prepared by process {os.getpid()}"):
            first.prepare()
        with pytest.raises(ValueError, match=r"has parts of another division \(0_of_1\)"):
            replace(first, of=2).parts().prepare(1, workers=1, progress=lambda progress: None)
        assert not (first.work / "1_of_2").exists()

    first.parts().prepare_all(workers=1, progress=interrupt)
    assert is_whole_or_absent(tmp_path / "source")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def is_at_work(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:  # it has ended, and was waited for already
        return False


def test_a_source_appears_at_once(corpora_in_files: Path, tmp_path: Path) -> None:
    watched = replace(job(corpora_in_files, "texts", tmp_path / "source"), pause=0.02)
    looks = 0
    with begun(watched) as process:
        while is_at_work(process):
            assert is_whole_or_absent(tmp_path / "source")
            looks += not (tmp_path / "source").exists()
    assert looks > 10
    assert (tmp_path / "source").is_dir()


@pytest.mark.parametrize(
    ("most_bytes", "shard_tokens", "what"),
    [
        (20_000, 30_000, r"\[Errno 27\] File too large"),  # a shard
        (16_000, 5_000, r".*seen\.sqlite: disk I/O error"),
    ],
)
def test_a_full_disk(most_bytes: int, shard_tokens: int, what: str, corpora_in_files: Path, tmp_path: Path) -> None:
    """What it says, and that the same command goes on when there is room again."""
    starved = job(corpora_in_files, "texts", tmp_path / "starved" / "source", shard_tokens=shard_tokens)
    in_one_go = prepared_in_one_go(replace(starved, folder=str(tmp_path / "source")))
    said = alone("starved", starved, most_bytes)
    stays = f"What was prepared so far is kept in {starved.work}, and the same command continues from there."
    assert re.fullmatch(rf"{what}\. {re.escape(stays)}", said), said
    assert contents(Path(starved.folder)) == in_one_go
