"""Whatever happens to a byte of a prepared source is found, and the bytes that are named have it among them."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_modules import SourceShards
from data_modules.corpora import FunctionCorpus, TextOrConversation
from data_modules.preparation import PreparationSettings, PreparationTarget, adopt_shards, prepare_source
from data_modules.shards.shard_files import read_source_json, with_checksum
from data_modules.shards.shard_integrity import MIB, find_damage
from gpt_lightning.tokenizer import load_tokenizer

HEADER = 128  # of a .npy
N_IDS = 50257
RANDOM_IDS = np.random.default_rng(0).integers(0, N_IDS, 1_300_001, dtype=np.uint16)  # 2.5 MiB


def of_others(folder: Path) -> Path:
    """One file of 2.5 MiB, the last tenth of it for validation."""
    folder.mkdir(parents=True)
    RANDOM_IDS.tofile(folder / "all.bin")
    return adopted(folder / "all.bin", folder / "source", format="gpt2_5")


def large_chat(folder: Path) -> Path:
    """A shard of ids and one of masks, both larger than a MiB."""
    prepare_source(
        FunctionCorpus(lambda: (_conversation(n) for n in range(300))),
        PreparationTarget(name="chat", tokenizer=load_tokenizer("gpt2_chatml"), folder=folder, licence="test"),
        PreparationSettings(val_fraction=0.1),
    )
    assert all(path.stat().st_size > MIB for path in (folder / "train").iterdir())
    return folder


def _conversation(n: int) -> TextOrConversation:
    return [{"role": "user", "content": f"say it {n} times"}, {"role": "assistant", "content": " it" * 4200}]


def adopted(path: Path, folder: Path, **more: Any) -> Path:
    source = PreparationTarget(name="foreign", tokenizer=load_tokenizer("gpt2"), folder=folder, licence="test")
    adopt_shards(path, source, **{"val_fraction": 0.1} | more)
    return folder


def rewrite(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Another source.json, as if it had been written so."""
    information = read_source_json(folder)
    change(information)
    (folder / "source.json").write_text(json.dumps(with_checksum(information)))


def as_before(folder: Path) -> None:
    """A source as it was prepared when source.json had neither blocks nor a hash of its own."""
    information = read_source_json(folder)
    del information["sha256_of_the_rest"]
    for entry in information["splits"].values():
        for shard in entry["shards"]:
            del shard["crc32_per_mib"]
    (folder / "source.json").write_text(json.dumps(information))


def found_in(folder: Path, *, with_sha256: bool = False) -> list[str]:
    return find_damage(folder, read_source_json(folder), with_sha256=with_sha256)


def flip(path: Path, at: int, bits: int = 1) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ bits]))


@pytest.fixture(scope="module")
def sources(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of several shards, large ones of ids and masks, and one file of others; as they are now and as they once were."""
    root: Path = tmp_path_factory.mktemp("sources")
    folders = {}
    large_chat(root / "chat")
    for when in ("now", "before"):
        folders[f"stdlib {when}"] = shutil.copytree(tiny_data / "bpe_512" / "stdlib", root / when / "stdlib")
        folders[f"chat {when}"] = shutil.copytree(root / "chat", root / when / "chat")
        folders[f"of others {when}"] = of_others(root / when / "others")
    for name, folder in folders.items():
        if name.endswith("before"):
            as_before(folder)
    assert len(list(folders["stdlib now"].rglob("tokens_*.npy"))) > 2
    return folders


SOURCES = [f"{name} {when}" for name in ("stdlib", "chat", "of others") for when in ("now", "before")]


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("with_sha256", [False, True])
def test_what_is_whole_passes(name: str, with_sha256: bool, sources: dict[str, Path]) -> None:
    assert found_in(sources[name], with_sha256=with_sha256) == []


@pytest.mark.parametrize("name", SOURCES)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_byte_is_found_where_it_is(name: str, sources: dict[str, Path], data: st.DataObject) -> None:
    """Of any file; the range is the MiB that it lies in, or all that counts of a file whose blocks nobody noted."""
    folder = sources[name]
    files = sorted({*folder.rglob("*.npy"), *folder.parent.glob("*.bin")})
    path = data.draw(st.sampled_from(files))
    at = data.draw(st.integers(0, path.stat().st_size - 1))
    flip(path, at, bits := data.draw(st.integers(1, 255)))
    try:
        (found,) = found_in(folder, with_sha256=data.draw(st.booleans()))
    finally:
        flip(path, at, bits)
    assert found.startswith(f"{path} differs from source.json between bytes ")
    first, last = (int(number.replace(",", "")) for number in re.findall(r"bytes ([\d,]+) and ([\d,]+)", found)[0])
    assert first <= at < last <= path.stat().st_size
    if name.endswith("now"):
        assert last - first <= MIB
    assert found_in(folder) == []


@pytest.mark.parametrize("name", ["stdlib now", "of others now"])
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_byte_of_source_json_is_found_or_changes_nothing(
    name: str, sources: dict[str, Path], data: st.DataObject
) -> None:
    path = sources[name] / "source.json"
    content = path.read_bytes()
    information = read_source_json(sources[name])
    at = data.draw(st.integers(0, len(content) - 1))
    try:
        flip(path, at, data.draw(st.integers(1, 255)))
        again = read_source_json(sources[name])
    except ValueError as error:
        assert str(path) in str(error)  # noqa: PT017  # whether it raises depends on the byte
    else:
        assert all(again[key] == value for key, value in information.items() if key != "sha256_of_the_rest")
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("when", ["now", "before"])
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, len(RANDOM_IDS) - 1), stranger=st.integers(N_IDS, 65535))
def test_an_id_beyond_the_vocabulary_has_its_offset(
    when: str, at: int, stranger: int, sources: dict[str, Path]
) -> None:
    folder = sources[f"of others {when}"]
    path = folder.parent / "all.bin"
    ids = RANDOM_IDS.copy()
    ids[at] = stranger
    ids.tofile(path)
    (found,) = found_in(folder)
    RANDOM_IDS.tofile(path)
    assert found.startswith(f"{path} differs from source.json between bytes ")
    assert found.endswith(f", and has the id {stranger} at byte {2 * at:,}, but tokenizer gpt2 has 50,257 ids")


def test_an_id_beyond_the_vocabulary_is_found_where_the_hashes_agree(tmp_path: Path) -> None:
    """Made so: here by a tokenizer of fewer ids than the one that the file was adopted with."""
    folder = of_others(tmp_path / "others")
    rewrite(folder, lambda information: information["tokenizer"].update(name="small", vocab_size=50_000))
    border = read_source_json(folder)["splits"]["val"]["shards"][0]["offset"]
    strangers = np.flatnonzero(RANDOM_IDS >= 50_000)
    path = tmp_path / "others" / "all.bin"
    assert found_in(folder) == [
        f"{path} has the id {RANDOM_IDS[at]} at byte {2 * at:,}, but tokenizer small has 50,000 ids"
        for at in (strangers[0], strangers[2 * strangers >= border][0])
    ]


def test_ranges_are_named_together_where_they_touch(tmp_path: Path) -> None:
    folder = of_others(tmp_path / "others")
    path = tmp_path / "others" / "all.bin"
    flip(path, 10)
    flip(path, MIB)
    assert found_in(folder) == [f"{path} differs from source.json between bytes 0 and {2 * MIB:,}"]
    flip(path, MIB)
    flip(path, 2 * MIB + 10)
    assert found_in(folder) == [
        f"{path} differs from source.json between bytes 0 and {MIB:,} and in 1 later MiB",
    ]


def test_large_files_are_compared_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So are they adopted: neither changes what is noted or found."""
    folder = of_others(tmp_path / "others")
    monkeypatch.setattr("data_modules.shards.shard_integrity._AT_ONCE", MIB)
    monkeypatch.setattr("data_modules.corpora.foreign_shards._AT_ONCE", MIB // 2)
    path = tmp_path / "others" / "all.bin"
    again = adopted(path, tmp_path / "again", format="gpt2_5")
    assert read_source_json(again) == read_source_json(folder)
    assert found_in(folder) == []
    for at in (0, MIB):
        flip(path, at)
    assert found_in(folder) == [f"{path} differs from source.json between bytes 0 and {2 * MIB:,}"]


def test_only_sha256_finds_what_somebody_made_fit(tmp_path: Path) -> None:
    """A shard and its crc32, but not the hash that the fingerprint is made of."""
    folder = of_others(tmp_path / "others")
    rewrite(folder, lambda information: information["splits"]["val"]["shards"][0]["sha256"].update(ids="0" * 64))
    assert found_in(folder) == []
    shard = read_source_json(folder)["splits"]["val"]["shards"][0]
    (said,) = found_in(folder, with_sha256=True)
    assert said.endswith(
        f"all.bin differs from source.json between bytes {shard['offset']:,} and {RANDOM_IDS.nbytes:,}"
    )


def test_headers_and_later_additions_of_others_do_not_count(tmp_path: Path) -> None:
    """But half an id does, and a file that was not there when the others became a source."""
    (tmp_path / "theirs").mkdir()
    np.save(tmp_path / "theirs" / "train.npy", RANDOM_IDS)
    np.save(tmp_path / "theirs" / "val.npy", RANDOM_IDS[:100])
    folder = adopted(tmp_path / "theirs", tmp_path / "source", format="rangeflow")
    path = tmp_path / "theirs" / "train.npy"
    flip(path, HEADER - 1)
    with path.open("ab") as file:
        file.write(b"ab")
    assert found_in(folder) == []
    with path.open("ab") as file:
        file.write(b"c")
    size = HEADER + RANDOM_IDS.nbytes
    assert found_in(folder) == [f"{path} has {size + 3:,} bytes, which end inside an id: it must have {size:,}"]
    np.save(path, RANDOM_IDS)
    np.save(path.with_name("train_2.npy"), RANDOM_IDS)
    assert found_in(folder) == [f"{path.with_name('train_2.npy')} is not in source.json"]


def test_a_fingerprint_is_the_same_with_and_without_blocks(sources: dict[str, Path]) -> None:
    for name in ("stdlib", "chat"):
        assert SourceShards(sources[f"{name} now"]).fingerprint == SourceShards(sources[f"{name} before"]).fingerprint


def test_a_source_json_that_was_changed_by_hand_says_how_to_keep_it(tmp_path: Path) -> None:
    folder = of_others(tmp_path / "others")
    information = read_source_json(folder)
    information["licence"] = "mine"
    (folder / "source.json").write_text(json.dumps(information))
    with pytest.raises(ValueError, match=r"source\.json was changed after it was written: .* sha256_of_the_rest"):
        SourceShards(folder)
    del information["sha256_of_the_rest"]
    (folder / "source.json").write_text(json.dumps(information))
    assert SourceShards(folder).information["licence"] == "mine"
