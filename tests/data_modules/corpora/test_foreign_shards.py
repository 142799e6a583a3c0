"""Shards in the layouts of other projects, made here of real text and adopted where they lie."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_modules import SourceShards
from data_modules.shards.shard_integrity import find_damage
from gpt_lightning.tokenizer import Tokenizer, load_tokenizer
from tests.conftest import CORPORA
from tests.data_modules.corpora.foreign_shard_files import EOT, IDS, adopt, llmc, write


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer("gpt2")


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [str(text) for text in CORPORA["pydoc"]()]


@pytest.fixture(scope="module")
def documents(texts: list[str], tokenizer: Tokenizer) -> list[np.ndarray]:
    """Ids of each text, and end-of-text."""
    return [np.array([*tokenizer.encode(text), EOT], dtype=np.uint16) for text in texts]


@pytest.mark.parametrize(
    ("format", "train", "val"),
    [
        ("nanogpt", ["train.bin"], ["val.bin"]),
        ("llmc", ["edu_fineweb_train_000001.bin", "edu_fineweb_train_000002.bin"], ["edu_fineweb_val_000000.bin"]),
        ("rangeflow", ["shard_0000.npy", "shard_0001.npy", "value_0002.npy"], ["shard_val.npy"]),
        ("rangeflow", ["train_0.npy"], ["validation_0.npy", "validation_1.npy"]),
    ],
)
def test_files_for_validation_are_known_by_name(
    format: str,
    train: list[str],
    val: list[str],
    documents: list[np.ndarray],
    texts: list[str],
    tokenizer: Tokenizer,
    tmp_path: Path,
) -> None:
    """The tokens are those of the files, in order; counts are those of the texts; and nothing was copied."""
    names = [*train, *val]
    cuts = np.linspace(0, len(documents), len(names) + 1).astype(int)
    chosen = {name: slice(cuts[n], cuts[n + 1]) for n, name in enumerate(names)}
    ids = {name: np.concatenate(documents[part]) for name, part in chosen.items()}
    path = write(tmp_path / "theirs", ids, llmc if format == "llmc" else np.ndarray.tobytes)
    source = adopt(path, format, tmp_path / "ours", tokenizer)
    assert [file.name for file in (tmp_path / "ours").rglob("*")] == ["source.json"]
    for split, stream, files in (("train", source.train, train), ("val", source.val, val)):
        expected = np.concatenate([ids[name] for name in files])
        assert np.array_equal(stream.read(0, len(stream)), expected)
        if len(files) > 1:
            border = len(ids[files[0]])
            assert np.array_equal(stream.read(border - 5, border + 5), expected[border - 5 : border + 5])
        assert stream.read_mask(0, len(stream)).all()
        entry = source.information["splits"][split]
        of_split = [text for name in files for text in texts[chosen[name]]]
        assert entry["documents"] == len(of_split)
        assert entry["tokens"] == entry["loss_bearing_tokens"] == len(expected)
        assert entry["bytes"] == sum(len(text.encode()) for text in of_split)
        assert [Path(shard["file"]) for shard in entry["shards"]] == [path / name for name in sorted(files)]
        assert entry["shards"][0]["sha256"] == {"ids": hashlib.sha256(ids[files[0]].tobytes()).hexdigest()}
    assert source.information["origin"] == {"path": str(path), "format": format}
    assert find_damage(tmp_path / "ours", source.information, with_sha256=True) == []


def test_the_last_documents_are_for_validation_where_no_file_is(
    documents: list[np.ndarray], texts: list[str], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """One flat file, for each place where the cut may fall: whole documents, no more tokens than were asked for."""
    everything = np.concatenate(documents)
    everything.tofile(tmp_path / "gpt2_5.bin")
    for val_fraction in (0.02, 0.1, 0.37, 0.5, 0.9):
        source = adopt(tmp_path / "gpt2_5.bin", "gpt2_5", tmp_path / f"{val_fraction}", tokenizer, val_fraction)
        train, val = (stream.read(0, len(stream)) for stream in (source.train, source.val))
        assert np.array_equal(np.concatenate([train, val]), everything)
        assert train[-1] == val[-1] == EOT
        longest = max(map(len, documents))
        assert val_fraction * len(everything) - longest <= len(val) <= val_fraction * len(everything) + 1
        entries = source.information["splits"]
        assert entries["train"]["documents"] + entries["val"]["documents"] == len(documents)
        assert entries["train"]["bytes"] + entries["val"]["bytes"] == sum(len(text.encode()) for text in texts)


@pytest.mark.parametrize("to_bytes", [llmc, np.ndarray.tobytes])
def test_the_cut_may_fall_into_any_file(
    to_bytes: Callable[[np.ndarray], bytes], documents: list[np.ndarray], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """The end of a file is a document's end as good as any, if files come after it."""
    path = write(tmp_path / "theirs", {f"part_{n:02d}.bin": ids for n, ids in enumerate(documents)}, to_bytes)
    everything = np.concatenate(documents)
    for n, val_fraction in enumerate((0.05, 0.3, 0.95)):
        format = "llmc" if to_bytes is llmc else "nanogpt"
        source = adopt(path, format, tmp_path / f"ours_{n}", tokenizer, val_fraction)
        train, val = (stream.read(0, len(stream)) for stream in (source.train, source.val))
        assert np.array_equal(np.concatenate([train, val]), everything)
        assert train[-1] == EOT
        assert source.information["splits"]["val"]["documents"] == np.count_nonzero(val == EOT)


def test_a_last_document_that_is_too_long_is_cut(tokenizer: Tokenizer, tmp_path: Path) -> None:
    ids = np.array([1, EOT, *range(100), EOT], dtype=np.uint16)
    ids.tofile(tmp_path / "a.bin")
    source = adopt(tmp_path / "a.bin", "gpt2_5", tmp_path / "ours", tokenizer, 0.25)
    assert source.train.read(0, len(source.train)).tolist() == ids[:77].tolist()
    assert source.val.read(0, len(source.val)).tolist() == ids[77:].tolist()


def test_what_became_of_the_files_is_noticed(documents: list[np.ndarray], tokenizer: Tokenizer, tmp_path: Path) -> None:
    ids = np.concatenate(documents)
    path = write(tmp_path / "theirs", {"train.bin": ids, "val.bin": ids[:500]}, llmc)
    information = adopt(path, "llmc", tmp_path / "ours", tokenizer).information
    content = bytearray((path / "train.bin").read_bytes())
    content[4] ^= 1  # of the header, which nobody reads any more
    (path / "train.bin").write_bytes(content)
    assert find_damage(tmp_path / "ours", information, with_sha256=True) == []
    content[1024 + 2 * 300] ^= 1
    (path / "train.bin").write_bytes(content)
    changed = f"{path / 'train.bin'} differs from source.json between bytes 1,024 and {1024 + ids.nbytes:,}"
    assert find_damage(tmp_path / "ours", information, with_sha256=True) == [changed]
    (path / "val.bin").unlink()
    assert find_damage(tmp_path / "ours", information, with_sha256=True) == [changed, f"{path / 'val.bin'} is missing"]
    with pytest.raises(ValueError, match=re.escape(f"{path / 'val.bin'} is missing")):
        SourceShards(tmp_path / "ours")


@pytest.mark.parametrize(
    ("format", "name", "content", "said"),
    [
        (
            "nanogpt",
            "a.bin",
            IDS.tobytes()[:-1],
            "a.bin has 599 bytes: its size must be a positive, even number of bytes, because ids are uint16.",
        ),
        (
            "gpt2_5",
            "a.bin",
            b"",
            "a.bin has 0 bytes: its size must be a positive, even number of bytes, because ids are uint16.",
        ),
        (
            "llmc",
            "a.bin",
            llmc(IDS)[:-1],
            "a.bin has 299.5 tokens by its size: it must have 300, as its header says. It is cut off or damaged.",
        ),
        (
            "llmc",
            "a.bin",
            llmc(IDS) + b"\0\0",
            "a.bin has 301.0 tokens by its size: it must have 300, as its header says. It is cut off or damaged.",
        ),
        (
            "llmc",
            "a.bin",
            llmc(IDS)[:1000],
            "a.bin lacks llm.c's header: it must start with 256 int32 (20240520, 1, number of ",
        ),
        (
            "llmc",
            "a.bin",
            bytes(1024) + IDS.tobytes(),
            "a.bin lacks llm.c's header: it must start with 256 int32 (20240520, 1, ",
        ),
        ("llmc", "a.bin", llmc(IDS[:0]), "a.bin is empty: it must hold at least one id."),
        ("rangeflow", "a.npy", IDS[None], "a.npy holds 2-dimensional uint16: it must hold one-dimensional uint16 ids."),
        (
            "rangeflow",
            "a.npy",
            IDS.astype(np.int64),
            "a.npy holds 1-dimensional int64: it must hold one-dimensional uint16 ids.",
        ),
        (
            "rangeflow",
            "a.npy",
            IDS.astype(">u2"),
            "a.npy holds 1-dimensional >u2: it must hold one-dimensional uint16 ids.",
        ),
        ("rangeflow", "a.npy", IDS[:0], "a.npy is empty: it must hold at least one id."),
        ("rangeflow", "a.npy", b"", "a.npy is damaged or not a .npy file of numbers."),
        ("rangeflow", "a.npy", IDS.tobytes(), "a.npy is damaged or not a .npy file of numbers."),
        ("rangeflow", "a.npy", np.array([{}]), "a.npy is damaged or not a .npy file of numbers."),
        ("rangeflow", "a.bin", IDS, " has no *.npy files, which format=rangeflow needs: check path and format."),
        ("rangeflo", "a.npy", IDS, "format is rangeflo: it must be one of nanogpt, llmc, gpt2_5, rangeflow."),
        (
            "nanogpt",
            "val.bin",
            IDS,
            " must have ids for training and for validation: files with val in their ",
        ),
        (
            "nanogpt",
            "train.bin",
            np.array([*IDS, 50257, 60000], dtype=np.uint16),
            "train.bin has the id 50257 at token 300 (byte 600): ids must be below 50,257, the vocab_size of tokenizer "
            "gpt2. Choose the tokenizer that the file was made with.",
        ),
        (
            "llmc",
            "val.bin",
            llmc(np.array([*IDS, 60000, 1], dtype=np.uint16)),
            "val.bin has the id 60000 at token 300 (byte 1,624): ids must be below 50,257, the vocab_size of tokenizer ",
        ),
    ],
)
def test_what_is_not_of_the_format_is_refused(
    format: str, name: str, content: Any, said: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    path = tmp_path / "theirs"
    path.mkdir()
    if isinstance(content, bytes):
        (path / name).write_bytes(content)
    elif name.endswith(".npy"):
        np.save(path / name, content)
    else:
        content.tofile(path / name)
    if "for training" not in said and "no *" not in said:
        whole = {"nanogpt": IDS.tobytes(), "llmc": llmc(IDS)}
        if format in whole:
            (path / ("val.bin" if name != "val.bin" else "train.bin")).write_bytes(whole[format])
    with pytest.raises(ValueError, match=re.escape(said)):
        adopt(path, format, tmp_path / "ours", tokenizer)
    assert not (tmp_path / "ours").exists()
