"""Which files of a repository are read, asked of a folder that is laid out like one and of a hub that is not there."""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest

from data_modules.corpora import FileCorpus, HubUnreachableError, find_hub_files
from tests.conftest import ROOT

CARD = """---
license: odc-by
configs:
- config_name: en
  data_files:
  - split: train
    path: en/c4-train.*.json.gz
  - split: validation
    path: en/c4-validation.*.json.gz
- config_name: realnewslike
  data_files:
  - split: train
    path: realnewslike/c4-train.*.json.gz
  - split: validation
    path: realnewslike/c4-validation.*.json.gz
---
# C4
"""
N_FILES = {"train": 12, "validation": 2}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A few records in the layout of allenai/c4."""
    folder = tmp_path / "c4"
    for config in ("en", "realnewslike"):
        (folder / config).mkdir(parents=True)
        for split, n_files in N_FILES.items():
            for n in range(n_files):
                path = folder / config / f"c4-{split}.{n:05d}-of-{n_files:05d}.json.gz"
                path.write_bytes(gzip.compress(json.dumps({"text": f"{config} {split} {n}", "url": ""}).encode()))
    (folder / "README.md").write_text(CARD)
    return folder


@pytest.mark.parametrize("config", ["en", "realnewslike"])
@pytest.mark.parametrize("split", N_FILES)
def test_a_split_is_its_files_in_order(config: str, split: str, repository: Path) -> None:
    files, commit = find_hub_files(str(repository), config=config, split=split)
    n_files = N_FILES[split]
    assert list(files) == [f"{config}/c4-{split}.{n:05d}-of-{n_files:05d}.json.gz" for n in range(n_files)]
    assert list(files.values()) == [str(repository / name) for name in files]
    assert commit is None
    corpus = FileCorpus(files, fields={"text": "text"}, origin={}, max_record_mb=1)
    documents = [
        document for n in range(n_files) for chunk in corpus.chunks(n, 0) for _, document in corpus.documents(n, chunk)
    ]
    assert documents == [f"{config} {split} {n}" for n in range(n_files)]


def test_a_folder_of_a_repository(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path is the same repository."""
    monkeypatch.chdir(repository.parent)
    assert (
        find_hub_files("./c4", config="en", split="train")[0]
        == find_hub_files(str(repository), config="en", split="train")[0]
    )


def test_a_repository_with_one_configuration_needs_no_name(repository: Path) -> None:
    """As tatsu-lab/alpaca: conf/source says config: null."""
    (repository / "README.md").unlink()
    shutil.rmtree(repository / "realnewslike")
    files, commit = find_hub_files(str(repository), config=None, split="train")
    assert [Path(name).name for name in files] == [f"c4-train.{n:05d}-of-00012.json.gz" for n in range(12)]
    assert commit is None


@pytest.mark.parametrize(
    ("config", "split", "said"),
    [
        ("de", "train", "config de: BuilderConfig 'de' not found. Available: ['en', 'realnewslike']."),
        (
            None,
            "train",
            "config None: Config name is missing. Please pick one among the available configs: ['en', 'realnewslike'].",
        ),
    ],
)
def test_an_unknown_configuration(config: str | None, split: str, said: str, repository: Path) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(f'{repository}, {said}')}$") as refused:
        find_hub_files(str(repository), config=config, split=split)
    assert not isinstance(refused.value, HubUnreachableError)  # no other dataset stands in for a slip of the pen


def test_an_unknown_split(repository: Path) -> None:
    with pytest.raises(
        ValueError, match=re.escape(f"{repository} has no split test: its splits are train, validation.")
    ) as refused:
        find_hub_files(str(repository), config="en", split="test")
    assert not isinstance(refused.value, HubUnreachableError)


def test_a_hub_that_is_not_there() -> None:
    script = """
from data_modules.corpora import HubUnreachableError, find_hub_files
try:
    find_hub_files("allenai/c4", config="en", split="train")
except HubUnreachableError as error:
    print(error)
"""
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert re.fullmatch(
        r"allenai/c4 cannot be reached on the Hugging Face hub \(.*OfflineModeIsEnabled.*\)\. If the dataset requires a "
        r"login, run: hf auth login\. Without a connection, set path=… to read a local copy of its files\.\n",
        done.stdout,
    )


COMMIT = "1588ec454efa1a09f29cd18ddd04fe05fc8653a2"


def addresses(commit: str, n: int) -> list[str]:
    return [f"hf://datasets/allenai/c4@{commit}/en/c4-train.{i:05d}-of-01024.json.gz" for i in range(n)]


def test_addresses_are_pinned_to_a_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, str | None] = {}

    def load_dataset_builder(path: str, **options: str | None) -> SimpleNamespace:
        asked.update(options, path=path)
        return SimpleNamespace(config=SimpleNamespace(data_files={"train": addresses(COMMIT, 3), "validation": []}))

    monkeypatch.setattr(datasets, "load_dataset_builder", load_dataset_builder)
    files, commit = find_hub_files("allenai/c4", config="en", split="train", revision="main")
    assert asked == {"path": "allenai/c4", "name": "en", "revision": "main"}
    assert commit == COMMIT
    assert list(files) == [f"en/c4-train.{i:05d}-of-01024.json.gz" for i in range(3)]
    assert list(files.values()) == addresses(COMMIT, 3)


def test_what_asks_for_a_login_is_not_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sentence, however many lines it has, is in ours."""

    def load_dataset_builder(path: str, **options: str | None) -> None:
        raise datasets.exceptions.DatasetNotFoundError(f"Dataset '{path}' is a gated dataset\non the Hub.")

    monkeypatch.setattr(datasets, "load_dataset_builder", load_dataset_builder)
    with pytest.raises(
        HubUnreachableError, match=re.escape("hub (Dataset 'some/one' is a gated dataset on the Hub). Of")
    ):
        find_hub_files("some/one", config=None, split="train")
