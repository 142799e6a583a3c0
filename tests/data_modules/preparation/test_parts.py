"""A source prepared in any number of parts, in any order and anywhere, is the one of one machine."""

import json
import random
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_modules import SourceShards
from data_modules.corpora import TextOrConversation
from data_modules.preparation import PreparationProgress
from data_modules.preparation.prepare_source import group_files
from data_modules.shards.shard_integrity import find_damage
from tests.conftest import CORPORA
from tests.data_modules.preparation.conftest import FIELDS, pieces_of_code, write_jsonl
from tests.data_modules.preparation.preparation_process import Job, contents

SIZES = (30, 4, 3, 25, 2, 2, 2, 20)  # documents of each file
GROUP_MB = 0.012


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`texts` and `chat` in eight files; the first two documents of all are also the last two of each."""
    root: Path = tmp_path_factory.mktemp("files")
    documents: Sequence[TextOrConversation]
    for name, documents in (
        ("texts", pieces_of_code(sum(SIZES), characters=1500)),
        ("chat", list(CORPORA["docstrings"]())[: sum(SIZES)]),
    ):
        (root / name).mkdir()
        rest = iter(documents)
        for number, size in enumerate(SIZES):
            write_jsonl(root / name / f"{number}.jsonl", [*(next(rest) for _ in range(size)), *documents[:2]])
        (root / name / "9.json").write_text("[]")
    return root


def job(files: Path, name: str, folder: Path, *, of: int, **recipe: Any) -> Job:
    """Groups that take several shards."""
    mb = GROUP_MB if name == "texts" else GROUP_MB / 6
    return Job(
        str(files / name), str(folder), FIELDS[name], recipe={"shard_tokens": 4_000} | recipe, of=of, group_mb=mb
    )


def prepare(job: Job, part: int) -> None:
    job.parts().prepare(part, workers=1, progress=ignore)


def ignore(progress: PreparationProgress) -> None:
    """Nobody looks."""


@pytest.mark.parametrize("name", ["texts", "chat"])
@pytest.mark.parametrize("of", [1, 2, 3, 5, 16])
def test_any_number_of_parts_in_any_order(name: str, of: int, files: Path, tmp_path: Path) -> None:
    parts = job(files, name, tmp_path / "many" / "source", of=of)
    assert max(group_files([file.stat().st_size for file in sorted(Path(parts.path).iterdir())], parts.group_mb)) >= 3
    information = replace(parts, of=1, folder=str(tmp_path / "source")).prepare()
    assert len(information["splits"]["train"]["shards"]) >= 5
    assert information["duplicates"] == {"count": 2 * len(SIZES), "removed": False}
    assert len(information["files"]) == len(SIZES) + 1
    order = list(range(of))
    random.Random(of).shuffle(order)
    for number in order:
        prepare(parts, number)
    shards = {path.stat().st_ino for path in parts.work.rglob("*.npy")}
    assert parts.parts().join() == information
    assert contents(Path(parts.folder)) == contents(tmp_path / "source")
    assert {path.stat().st_ino for path in Path(parts.folder).rglob("*.npy")} == shards  # renamed, not copied
    assert [path.name for path in (tmp_path / "many").iterdir()] == ["source"]


def test_parts_of_many_machines_are_brought_together(files: Path, tmp_path: Path) -> None:
    here = job(files, "texts", tmp_path / "source", of=3)
    for number in range(3):
        there = replace(here, folder=str(tmp_path / f"machine {number}" / "source"))
        prepare(there, number)
        here.work.mkdir(exist_ok=True)
        shutil.move(there.work / f"{number}_of_3", here.work)
    here.parts().join()
    replace(here, folder=str(tmp_path / "one" / "source"), of=1).prepare()
    assert contents(tmp_path / "source") == contents(tmp_path / "one" / "source")


def test_parts_of_an_earlier_version_are_joined_too(files: Path, tmp_path: Path) -> None:
    """One that was prepared before there were checksums of blocks is the same source, verified by its sha256."""
    source = job(files, "chat", tmp_path / "source", of=2)
    prepare(source, 0)
    prepare(source, 1)
    record = source.work / "0_of_2" / "part.json"
    state = json.loads(record.read_text())
    for split in state["splits"].values():
        for shard in split["shards"]:
            del shard["crc32_per_mib"]
    record.write_text(json.dumps(state))
    information = source.parts().join()
    shards = information["splits"]["train"]["shards"]
    assert [set(shard) for shard in shards] == sorted(map(set, shards), key=len)
    assert len(shards[0]) < len(shards[-1])
    assert find_damage(tmp_path / "source", information, with_sha256=False) == []
    replace(source, of=1, folder=str(tmp_path / "one" / "source")).prepare()
    assert SourceShards(tmp_path / "source").fingerprint == SourceShards(tmp_path / "one" / "source").fingerprint


def test_missing_parts_are_named(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = job(files, "texts", tmp_path / "source", of=3)

    def interrupt(progress: PreparationProgress) -> None:
        if progress.documents > 30:
            raise KeyboardInterrupt

    with pytest.raises(
        ValueError, match=re.escape("part 0/3, 1/3, 2/3 are missing or incomplete. Run part=0/3, part=1")
    ):
        source.parts().join()
    assert not list(tmp_path.iterdir())
    prepare(source, 2)
    prepare(source, 0)
    with pytest.raises(ValueError, match=re.escape("source cannot be joined: part 1/3 is missing or incomplete.")):
        source.parts().join()
    monkeypatch.setattr("data_modules.preparation.resumable_part.COMMIT_SECONDS", -1.0)
    with pytest.raises(KeyboardInterrupt):
        source.parts().prepare(1, workers=1, progress=interrupt)
    assert (source.work / "1_of_3" / "part.json").is_file()
    with pytest.raises(ValueError, match=re.escape("part 1/3 is missing or incomplete. Run part=1/3 first.")):
        source.parts().join()
    assert not source.parts().folder.exists()
    prepare(source, 1)
    source.parts().join()


def test_a_join_that_stopped_at_the_end_is_recognised(files: Path, tmp_path: Path) -> None:
    """The source is there under its name, and only what was left of the parts is removed."""
    source = job(files, "texts", tmp_path / "source", of=2)
    prepare(source, 0)
    prepare(source, 1)
    shutil.copytree(source.work, tmp_path / "kept")
    information = source.parts().join()
    with pytest.raises(ValueError, match="source already exists: delete it to prepare it again"):
        prepare(source, 0)
    (tmp_path / "kept").rename(source.work)
    for shard in source.work.rglob("*.npy"):
        shard.unlink()
    assert source.parts().join() == information
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        ({"limit_tokens": 1000}, "limit_tokens is set: it must be all to prepare in parts"),
        ({"deduplicate": "exact"}, "deduplicate is exact: it must be null to prepare in parts"),
        ({"split": "tail"}, "split is tail: it must be hash to prepare in parts"),
    ],
)
def test_what_parts_cannot_do(recipe: dict[str, Any], sentence: str, files: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        job(files, "texts", tmp_path / "source", of=2, **recipe).parts()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"group_mb": 2 * GROUP_MB},
            f"was started with group_mb={GROUP_MB}, and group_mb is now {2 * GROUP_MB}: set it back",
        ),
        (
            {"recipe": {"shard_tokens": 5_000}},
            "was started with shard_tokens=4000, and shard_tokens is now 5000: set it back",
        ),
        ({"tokenizer": "gpt2"}, "was started with tokenizer="),
    ],
)
def test_parts_are_of_one_request(change: dict[str, Any], sentence: str, files: Path, tmp_path: Path) -> None:
    """Whatever decides the bytes; else a part would be half of this and half of that."""
    source = job(files, "texts", tmp_path / "source", of=1)
    prepare(source, 0)
    for go_on in (replace(source, **change).prepare, replace(source, **change).parts().join):
        with pytest.raises(ValueError, match=re.escape(sentence)):
            go_on()
    source.parts().join()


def test_bad_records_are_judged_by_the_whole(tmp_path: Path) -> None:
    """One in a small part may be one in a thousand of all; and too many of all are too many."""
    folder = tmp_path / "files"
    folder.mkdir()
    texts = [f"text {n}" for n in range(1999)]
    write_jsonl(folder / "0.jsonl", texts[:1899])
    write_jsonl(folder / "1.jsonl", texts[1899:])
    with (folder / "1.jsonl").open("a") as file:
        file.write("{\n")
    parts = Job(str(folder), str(tmp_path / "many"), recipe={"on_bad_record": "skip"}, of=2, group_mb=0.001)
    prepare(parts, 0)
    prepare(parts, 1)
    information = parts.parts().join()
    assert (information["records"], information["bad_records"]["count"]) == (2000, 1)
    replace(parts, folder=str(tmp_path / "one" / "many"), of=1).prepare()
    assert contents(tmp_path / "one" / "many") == contents(tmp_path / "many")

    with (folder / "0.jsonl").open("a") as file:
        file.write("{\n" * 2)
    parts = replace(parts, folder=str(tmp_path / "refused"))
    prepare(parts, 0)
    prepare(parts, 1)
    with pytest.raises(
        ValueError, match=re.escape("3 of 2,002 records are bad, which is more than one in a thousand: ")
    ):
        parts.parts().join()


@given(st.lists(st.integers(0, 3_000_000)), st.sampled_from([0.001, 1, 2.5, 64]))
def test_groups_end_with_the_file_that_fills_them(sizes: list[int], group_mb: float) -> None:
    numbers = group_files(sizes, group_mb)
    assert len(numbers) == len(sizes)
    members = [[size for size, number in zip(sizes, numbers, strict=True) if number == n] for n in sorted(set(numbers))]
    assert [size for group in members for size in group] == sizes
    assert sorted(set(numbers)) == list(range(len(members)))
    assert all(sum(group[:-1]) < group_mb * 1e6 for group in members)
    assert all(sum(group) >= group_mb * 1e6 for group in members[:-1])
