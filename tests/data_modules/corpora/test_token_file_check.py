"""What is no shard of ids is recognised and refused; what is left out of a folder of shards is said."""

import gzip
import io
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_modules.shards.shard_integrity import find_damage
from gpt_lightning.tokenizer import Tokenizer, load_tokenizer
from running.commands.prepare import prepare
from running.config.compose import compose_config
from tests.data_modules.corpora.foreign_shard_files import IDS, adopt, llmc, write


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer("gpt2")


RANDOM = np.random.default_rng(1).integers(0, 50257, 100)
CHARACTERS = np.random.default_rng(2).integers(0, 65, 400)
FLAT = ("nanogpt", "gpt2_5")


@pytest.mark.parametrize("format", FLAT)
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (RANDOM.astype("<u4"), "4-byte integers (uint32 or int32)"),
        (RANDOM.astype("<i8"), "8-byte integers (int64)"),
        (RANDOM.astype("<f4"), "4-byte floats"),
        (RANDOM.astype("<f8"), "8-byte floats"),
        (RANDOM.astype(">u2"), "big-endian 2-byte integers"),
        (RANDOM.astype(">u4"), "big-endian 4-byte integers"),
        (RANDOM.astype(">i8"), "big-endian 8-byte integers"),
        (CHARACTERS.astype(">u2"), "big-endian 2-byte integers"),
        (CHARACTERS.astype("u1"), "1-byte values"),
        ("Some text, naïve as it is.\n".encode() * 20, "text"),
    ],
)
def test_what_holds_no_2_byte_ids_is_recognised(
    content: Any, said: str, format: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    (tmp_path / "train.bin").write_bytes(bytes(content))
    (tmp_path / "val.bin").write_bytes(IDS.tobytes())
    message = f"train.bin holds {said}: it must hold uint16 ids. Convert it to 2-byte ids"
    with pytest.raises(ValueError, match=re.escape(message)):
        adopt(tmp_path, format, tmp_path / "ours", tokenizer)
    assert not (tmp_path / "ours").exists()


def saved_by_torch() -> bytes:
    content = io.BytesIO()
    torch.save({"state": torch.zeros(8)}, content)
    return content.getvalue()


@pytest.mark.parametrize("format", FLAT)
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (saved_by_torch(), "a zip archive, which torch.save writes"),
        (pickle.dumps(list(range(9)), protocol=4), "a pickle"),
        (gzip.compress(IDS.tobytes(), mtime=0), "compressed with gzip"),
        (llmc(IDS), "a file with llm.c's header, which needs format=llmc"),
        (np.int32([20240326, 3]).tobytes() + bytes(1016), "an llm.c file of type 20240326"),
    ],
    ids=["torch.save", "pickle", "gzip", "llmc", "llmc of another type"],
)
def test_files_of_another_kind_are_recognised(
    content: bytes, said: str, format: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    (tmp_path / "optimizer.bin").write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(f"optimizer.bin is {said}: it must be a flat file of uint16 ids.")):
        adopt(tmp_path, format, tmp_path / "ours", tokenizer)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            np.int32([20240801, 7, 300, *[0] * 253]).tobytes(),
            "number of tokens, …). It is an llm.c file of type 20240801.",
        ),
        (IDS.tobytes() * 4, "number of tokens, …). For flat files of ids, use format=nanogpt."),
        (llmc(RANDOM.astype("<u4")), "a.bin holds 4-byte integers: it must hold uint16 ids"),
        (llmc(RANDOM.astype(">u2")), "a.bin holds big-endian 2-byte integers: it must hold uint16 ids"),
    ],
)
def test_so_is_what_only_looks_like_llm_c(content: bytes, said: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(said)):
        adopt(tmp_path, "llmc", tmp_path / "ours", tokenizer)


@pytest.mark.parametrize("format", [*FLAT, "rangeflow"])
@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "meta.pkl",
            pickle.dumps({"stoi": {"a": 0}}),
            "meta.pkl defines a separate vocabulary",
        ),
        ("index.json", b'{"chunks": [], "config": {}}', "index.json belongs to litdata"),
    ],
)
def test_neighbours_say_what_the_files_are(
    name: str, content: bytes, said: str, format: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    file = "chunk-0-0.npy" if format == "rangeflow" else "chunk-0-0.bin"
    path = write(tmp_path / "theirs", {file: IDS}, np.ndarray.tobytes)
    (path / name).write_bytes(content)
    for place in (path, path / file):
        with pytest.raises(ValueError, match=re.escape(said)):
            adopt(place, format, tmp_path / "ours", tokenizer)


@pytest.mark.parametrize(
    ("names", "train", "left_out", "remark"),
    [
        (
            ["train", "val", "test", "optimizer"],
            ["train"],
            ["optimizer", "test"],
            "optimizer.bin, test.bin are skipped, because the name indicates neither train nor val",
        ),
        (["Train-1", "Val-1", "train2"], ["Train-1", "train2"], [], None),
        (
            ["a", "val", "dev_1"],
            ["a"],
            ["dev_1"],
            "dev_1.bin is skipped, because the name indicates neither train nor val",
        ),
        (["part_1", "part_2"], ["part_1"], [], None),
        (["a", "b", "val"], ["a", "b"], [], "no file has train in its name, so training uses: a.bin, b.bin"),
    ],
)
@pytest.mark.parametrize("format", ["nanogpt", "gpt2_5", "rangeflow"])
def test_files_that_are_neither_for_training_nor_for_validation_are_named(
    names: list[str],
    train: list[str],
    left_out: list[str],
    remark: str | None,
    format: str,
    tokenizer: Tokenizer,
    tmp_path: Path,
) -> None:
    """They are no damage later; a file that comes up later is. Hidden files are not seen."""
    suffix = ".npy" if format == "rangeflow" else ".bin"
    path = write(tmp_path / "theirs", {f"{name}{suffix}": IDS for name in names}, np.ndarray.tobytes)
    (path / f"._train{suffix}").write_bytes(b"of macOS")
    source = adopt(path, format, tmp_path / "ours", tokenizer, 0.5)
    assert [Path(shard["file"]).stem for shard in source.information["splits"]["train"]["shards"]] == train
    assert source.information["origin"].get("left_out", []) == [f"{name}{suffix}" for name in left_out]
    assert source.information["remarks"] == ([remark.replace(".bin", suffix)] if remark else [])
    assert find_damage(tmp_path / "ours", source.information, with_sha256=True) == []
    shutil.copy(path / f"{names[0]}{suffix}", path / f"test_2{suffix}")
    (said,) = find_damage(tmp_path / "ours", source.information, with_sha256=True)
    assert f"test_2{suffix} is not in source.json" in said


def test_what_is_for_tests_alone_is_not_trained_on(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = write(tmp_path / "theirs", {"test.bin": IDS, "val.bin": IDS}, np.ndarray.tobytes)
    for place in (path, path / "test.bin"):
        with pytest.raises(
            ValueError,
            match=r"must have ids for training .*test\.bin is skipped, because the name indicates neither train nor val",
        ):
            adopt(place, "nanogpt", tmp_path / "ours", tokenizer)


@pytest.mark.parametrize("format", ["nanogpt", "llmc", "gpt2_5", "rangeflow"])
def test_an_end_of_text_that_never_occurs_is_said(format: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    files = {
        f"{split}.npy" if format == "rangeflow" else f"{split}.bin": IDS[:2].repeat(50) for split in ("train", "val")
    }
    path = write(tmp_path / "theirs", files, llmc if format == "llmc" else np.ndarray.tobytes)
    (remark,) = adopt(path, format, tmp_path / "ours", tokenizer).information["remarks"]
    assert remark.startswith("no document ends: the end-of-text id 50256 of tokenizer gpt2 does not occur")
    assert "whose highest id is 2." in remark


def test_prepare_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(
        tmp_path / "theirs", {f"{name}.bin": np.arange(400, dtype=np.uint16) for name in "atv"}, np.ndarray.tobytes
    )
    (path / "t.bin").rename(path / "test.bin")
    overrides = ["source=local", "tokenizer=gpt2", f"data_dir={tmp_path}", f"path={path}", "format=nanogpt"]
    prepare(compose_config("prepare", overrides))
    printed = capsys.readouterr().out
    assert "local: test.bin is skipped, because the name indicates neither train nor val\n" in printed
    assert "local: no document ends: the end-of-text id 50256 of tokenizer gpt2 does not occur" in printed
