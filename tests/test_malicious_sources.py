"""Text and tokens of a stranger's run nothing and lead nowhere else: each door refuses them in one sentence."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_modules import SourceShards
from data_modules.corpora import find_hub_files
from gpt_lightning.convert import from_hf, to_hf
from gpt_lightning.tokenizer import load_tokenizer
from running.commands.prepare import prepare
from running.commands.train import train
from running.config.compose import compose_config
from tests.conftest import TINY
from tests.gpt_lightning.tiny_models import LLAMA, build
from tests.malicious_pickle import PICKLE, Evil, nothing_run_in, refusal

Information = dict[str, Any]


@pytest.fixture(autouse=True)
def _nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with nothing_run_in(tmp_path, monkeypatch):
        yield


def said_of(path: Path, *more: str) -> str:
    """What prepare.py says of a file."""
    return refusal(
        prepare, "prepare", "tokenizer=gpt2", "data_dir=data", "source=local", "workers=1", f"path={path}", *more
    )


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "parquet", "arrow", "txt", "jsonl.gz", "arrow.zst", "pkl"])
def test_a_pickle_is_no_text(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"evil.{ending}"
    path.write_bytes(PICKLE)
    assert "evil." in said_of(path)


def test_types_of_arrow_are_not_unpickled(tmp_path: Path) -> None:
    """Before pyarrow 14.0.1, reading a field with this metadata unpickled it (CVE-2023-47248)."""
    metadata = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": PICKLE}
    field = pa.field("text", pa.string(), metadata=metadata)
    table = pa.table([pa.array([f"Once upon a time there were {n}" for n in range(100)])], schema=pa.schema([field]))
    pq.write_table(table, tmp_path / "evil.parquet")
    with pa.OSFile(str(tmp_path / "evil.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    for name in ("evil.parquet", "evil.arrow"):
        overrides = ["tokenizer=gpt2", f"data_dir={tmp_path / name}_data", "source=local", "workers=1"]
        prepare(compose_config("prepare", [*overrides, f"path='{tmp_path / name}'"]))


def objects(path: Path) -> None:
    np.save(path, np.array([Evil()], dtype=object), allow_pickle=True)


def archive(path: Path) -> None:
    np.savez(path.with_suffix(".npz"), a=np.zeros(3, dtype=np.uint16))
    path.with_suffix(".npz").rename(path)


SHARDS: dict[str, Callable[[Path], object]] = {
    "objects": objects,
    "a pickle": lambda path: path.write_bytes(PICKLE),
    "an archive": archive,
    "nothing": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("kind", SHARDS)
def test_a_shard_is_numbers(kind: str, tiny_data: Path, tmp_path: Path) -> None:
    SHARDS[kind](tmp_path / "evil.npy")
    assert "evil.npy" in said_of(tmp_path / "evil.npy", "format=rangeflow")
    shutil.copytree(tiny_data, "data")
    shard = Path("data") / "bpe_512" / "stdlib" / "train" / "tokens_0000.npy"
    SHARDS[kind](shard)
    for verify in ("true", "false"):
        assert str(shard) in refusal(train, "train", *TINY, "data_dir=data", "name=run", f"data.verify={verify}")
    ours = ["source=stdlib", "tokenizer.name=bpe_512", "tokenizer.model_vocab_size=512", "data_dir=data"]
    assert str(shard) in refusal(prepare, "prepare", *ours, "mode=verify")


def changed(information: Information, **first_shard: Any) -> None:
    information["splits"]["train"]["shards"][0] |= first_shard


OF_OTHERS = {"file": "evil.bin", "offset": 0, "dtype": "uint16", "sha256": {"ids": "0" * 64}}
DESCRIPTIONS: dict[str, tuple[Callable[[Information], object], str]] = {
    "a file outside": (
        lambda i: changed(i, sha256={"../../../../evil.bin": "0" * 64}),
        "lists ../../../../evil.bin, which is not in its folder",
    ),
    "a file anywhere": (lambda i: changed(i, sha256={"/etc/passwd": "0"}), "lists /etc/passwd, which is not in"),
    "pointers": (lambda i: changed(i, **OF_OTHERS | {"dtype": "O"}), "its dtype is 'O' and must be uint16 or uint32"),
    "ours as pointers": (lambda i: i["splits"]["val"].update(dtype="object"), "its dtype is 'object' and must be"),
    "a type with code": (lambda i: changed(i, **OF_OTHERS | {"dtype": {"_target_": "os.mkdir"}}), "its dtype is {"),
    "backwards": (lambda i: changed(i, **OF_OTHERS | {"offset": -4}), "a number of tokens or bytes is -4"),
    "less than nothing": (lambda i: changed(i, tokens=-1), "a number of tokens or bytes is -1"),
    "a text for a number": (lambda i: changed(i, tokens="5"), "a number of tokens or bytes is '5'"),
    "a list for a file": (lambda i: changed(i, **OF_OTHERS | {"file": ["a"]}), "TypeError"),
    "no splits": (lambda i: i.pop("splits"), "KeyError: 'splits'"),
    "other splits": (lambda i: i["splits"].update(train=[1]), "TypeError"),
}


@pytest.mark.parametrize("what", DESCRIPTIONS)
def test_a_source_describes_its_own_shards(what: str, tiny_data: Path, tmp_path: Path) -> None:
    change, message = DESCRIPTIONS[what]
    (tmp_path / "evil.bin").write_bytes(bytes(1_000_000))
    folder: Path = shutil.copytree(tiny_data / "bpe_512" / "stdlib", tmp_path / "stdlib")
    information = json.loads((folder / "source.json").read_text())
    information.pop("sha256_of_the_rest", None)  # nobody keeps a stranger from sealing it
    change(information)
    (folder / "source.json").write_text(json.dumps(information))
    with pytest.raises(ValueError, match=r"source\.json is malformed \(") as error:
        SourceShards(folder)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def copy_of_a_repository(folder: Path, data_files: str) -> Path:
    (folder / "en").mkdir(parents=True)
    (folder / "en" / "a.json").write_text('{"text": "Once upon a time"}\n')
    (folder.parent / "secret.json").write_text('{"text": "a secret"}\n')
    card = {"configs": [{"config_name": "en", "data_files": [{"split": "train", "path": data_files}]}]}
    (folder / "README.md").write_text(f"---\n{json.dumps(card)}\n---\n")
    return folder


def test_a_copy_of_a_repository_stays_in_its_folder(tmp_path: Path) -> None:
    copy = copy_of_a_repository(tmp_path / "0" / "copy", "en/*.json")
    assert find_hub_files(str(copy), config="en", split="train") == ({"en/a.json": str(copy / "en" / "a.json")}, None)
    outside = ["../secret.json", "en/../../secret.json", "{folder}/secret.json", "file://{folder}/secret.json"]
    for number, data_files in enumerate(outside, start=1):
        folder = tmp_path / str(number)
        copy = copy_of_a_repository(folder / "copy", data_files.format(folder=folder))
        with pytest.raises(
            ValueError, match=r"secret\.json, which is not in this dataset: only its own files are read"
        ):
            find_hub_files(str(copy), config="en", split="train")


def test_no_program_of_a_repository_is_run(tmp_path: Path) -> None:
    copy = copy_of_a_repository(tmp_path / "copy", "en/a.json")
    (copy / "copy.py").write_text("import os\nos.mkdir('marker')\n")
    with pytest.raises(ValueError, match=r"found copy\.py, and dataset scripts are not executed"):
        find_hub_files(str(copy), config="en", split="train")


def test_a_tokenizer_is_no_pickle(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(PICKLE)
    with pytest.raises(ValueError, match=r"tokenizer\.json is not a tokenizer\.json"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("outside", ["../evil.safetensors", "/tmp/evil.safetensors", "sub/evil.safetensors", "..", ""])
def test_an_index_of_weights_stays_in_its_folder(outside: str, tmp_path: Path) -> None:
    to_hf(build(**LLAMA), tmp_path / "model", format="llama")
    (tmp_path / "model" / "model.safetensors").rename(tmp_path / "evil.safetensors")
    index = {"weight_map": {"model.norm.weight": outside}}
    (tmp_path / "model" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"lacks a valid weight_map|model lacks "):
        from_hf(tmp_path / "model")


def test_weights_are_no_pickle_whatever_they_are_called(tmp_path: Path) -> None:
    to_hf(build(**LLAMA), tmp_path / "model", format="llama")
    (tmp_path / "model" / "model.safetensors").write_bytes(PICKLE)
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged or not a safetensors file"):
        from_hf(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").rename(tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin, which can execute code when loaded"):
        from_hf(tmp_path / "model")
