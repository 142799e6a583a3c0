"""Of a folder, what `datasets` would read; what is passed over is said in one line."""

import json
import re
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_modules.corpora import FileCorpus, find_hub_files, find_local_files
from data_modules.corpora.find_local_files import _DESCRIPTIONS, _SPLITS

CARD = "---\nlicense: mit\nconfigs:\n{}\n---\n# A card\n"
ONE_CONFIG = CARD.format(
    "- config_name: default\n  data_files:\n"
    "  - {split: train, path: data/part-*.jsonl}\n  - {split: test, path: [data/held.jsonl, 'more/**']}"
)
TWO_CONFIGS = CARD.format(
    "- {config_name: en, data_files: [en/a.jsonl, en/b.jsonl]}\n- {config_name: de, data_dir: de, default: true}"
)


def make(root: Path, files: dict[str, str]) -> Path:
    """Write a folder of these files; in one whose content is empty stands one record."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".parquet"):
            pq.write_table(pa.table({"text": [name]}), path)
        else:
            path.write_text(content or json.dumps({"text": name}) + "\n", encoding="utf-8")
    return root


def read(path: Path | str) -> tuple[list[str], list[str]]:
    """(names of the files that a path means, what is said of the others)."""
    said: list[str] = []
    files = find_local_files(str(path), tell=said.append)
    assert all(Path(place).is_absolute() and Path(place).is_file() for place in files.values())
    return list(files), [line.removeprefix(f"{path}: ") for line in said]


FOLDERS: dict[str, tuple[list[str], list[str], str]] = {  # files, those that are read, what is said of the others
    "plain": (["a.txt", "b/c.jsonl"], ["a.txt", "b/c.jsonl"], ""),
    "hidden": (
        ["a.txt", ".b.txt", ".ipynb_checkpoints/a-checkpoint.txt", "x/.git/c.txt", "__MACOSX/a.txt"],
        ["a.txt"],
        "1 file is read; skipped: hidden files (1), hidden folders (3)",
    ),
    "other formats": (
        ["a.jsonl.xz", "b.txt.bz2", "c.ndjson", "d.tsv", "e.pdf", "f.PDF", "g.tar.gz", "LICENSE", "h.\x1b[31m"],
        ["a.jsonl.xz", "b.txt.bz2", "c.ndjson", "d.tsv"],
        "4 files are read; skipped: .pdf (2), .tar.gz (1), other files (2)",
    ),
    "descriptions": (
        ["a.txt", "README.md", "dataset_infos.json", "b/README.md", "config.json", "cache-0123.arrow"],
        ["a.txt"],
        "1 file is read; skipped: README.md (2), cache-*.arrow (1), config.json (1), dataset_infos.json (1)",
    ),
    "shards": (
        [
            "data/train-00000-of-00001.parquet",
            "data/validation-00000-of-00001.parquet",
            "data/test-00000-of-00001.parquet",
        ],
        ["data/train-00000-of-00001.parquet"],
        "1 file is read; skipped: .parquet of the split test (1), .parquet of the split validation (1)",
    ),
    "split folders": (
        ["train/a.jsonl", "train/b.jsonl", "test/a.jsonl", "my-dev/a.jsonl", "stray.jsonl"],
        ["train/a.jsonl", "train/b.jsonl"],
        "2 files are read; skipped: .jsonl of no split (1), .jsonl of the split test (1), "
        ".jsonl of the split validation (1)",
    ),
    "only held-out files are named": (
        ["corpus.jsonl", "deep/test/a.txt", "Validation-1.jsonl"],
        ["corpus.jsonl"],
        "1 file is read; skipped: .jsonl of the split validation (1), .txt of the split test (1); "
        "path='{}/**/*.txt' would also read deep/test/a.txt",
    ),
    "texts with a title": (
        ["night-train.txt", "training manuals/a.txt", "test-drive.md", "contest.txt"],
        ["contest.txt", "night-train.txt", "test-drive.md", "training manuals/a.txt"],
        "",
    ),
    "texts with a split": (
        ["wiki.train.txt", "wiki.valid.txt", "test.txt"],
        ["wiki.train.txt"],
        "1 file is read; skipped: .txt of the split test (1), .txt of the split validation (1); "
        "path='{}/**/*.txt' would also read test.txt, wiki.valid.txt",
    ),
    "more texts than those with the name of a split": (
        ["a.md", "docs/b.md", "docs/evaluation.md", "c.txt", "Testing.txt", "test/d.md", "corpus.jsonl"],
        ["Testing.txt", "a.md", "c.txt", "corpus.jsonl", "docs/b.md", "docs/evaluation.md"],
        "read as ordinary texts, although their names look like a split: Testing.txt, docs/evaluation.md\n"
        "6 files are read; skipped: .md of the split test (1); path='{}/**/*.md' would also read test/d.md",
    ),
    "as many texts as those with the name of a split": (
        ["a.md", "evaluation.md"],
        ["a.md"],
        "1 file is read; skipped: .md of the split test (1); path='{}/**/*.md' would also read evaluation.md",
    ),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_of_a_folder_the_training_texts_are_read_and_the_rest_is_said(name: str, tmp_path: Path) -> None:
    files, expected, said = FOLDERS[name]
    assert read(make(tmp_path, dict.fromkeys(files, ""))) == (expected, said.format(tmp_path).splitlines())


def test_linked_folders_are_read_once(tmp_path: Path) -> None:
    make(tmp_path / "elsewhere", {"a.txt": ""})
    root = make(tmp_path / "root", {"b.txt": ""})
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "round").symlink_to(root)
    (root / "broken.txt").symlink_to(root / "gone.txt")
    assert read(root) == (["b.txt", "linked/a.txt"], ["2 files are read; skipped: broken links and devices (1)"])


LAYOUTS: dict[str, tuple[dict[str, str], str | None]] = {  # files, configuration
    "card": (
        dict.fromkeys(["data/part-1.jsonl", "data/part-2.jsonl", "data/held.jsonl", "more/x/y.jsonl", "z.jsonl"], "")
        | {"README.md": ONE_CONFIG},
        None,
    ),
    "en": (dict.fromkeys(["en/a.jsonl", "en/b.jsonl", "de/c.jsonl"], "") | {"README.md": TWO_CONFIGS}, "en"),
    "by default": (
        dict.fromkeys(["en/a.jsonl", "en/b.jsonl", "de/c.jsonl", "de/test.jsonl", "de/train.jsonl"], "")
        | {"README.md": TWO_CONFIGS},
        None,
    ),
    "without a card": (dict.fromkeys(["train.jsonl", "sub/test_1.jsonl", "other.jsonl"], ""), None),
    "card of a licence": (
        dict.fromkeys(["train/a.jsonl", "test/a.jsonl"], "") | {"README.md": "---\nlicense: mit\n---\n"},
        None,
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_copy_of_a_dataset_gives_what_datasets_reads(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    files, config = LAYOUTS[name]
    root = make(tmp_path / "copy", files)
    theirs, _ = find_hub_files(str(root), config=config, split="train")
    assert find_local_files(str(root), config=config) == theirs


@pytest.mark.parametrize(
    ("files", "config", "said"),
    [
        ({"data/test-0.parquet": ""}, None, "has no files of the split train, only of test."),
        (
            {"README.md": ONE_CONFIG, "data/held.jsonl": ""},
            None,
            "has no files of the split train: its README.md lists train",
        ),
        (
            {"README.md": TWO_CONFIGS.replace(", default: true", ""), "en/a.jsonl": ""},
            None,
            "is a dataset with several configurations (en, de): choose one of them.",
        ),
        (
            {"README.md": TWO_CONFIGS, "en/a.jsonl": ""},
            "fr",
            "has no configuration fr: its README.md lists en, de.",
        ),
        (
            {"README.md": CARD.format("- data_files: [{path: 3}]"), "a.txt": ""},
            None,
            "data_files is malformed: it must be a list of {split",
        ),
        ({"README.md": "", "b.pdf": ""}, None, "has no file of a supported format (.jsonl "),
    ],
)
def test_a_folder_without_the_split_is_refused(
    files: dict[str, str], config: str | None, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=re.escape(said)) as refused:
        find_local_files(str(make(tmp_path, files)), config=config)
    assert str(refused.value).startswith(f"path={tmp_path} ")


def test_a_card_that_is_not_yaml_is_refused(tmp_path: Path) -> None:
    make(tmp_path, {"README.md": CARD.format("- ]"), "a.txt": ""})
    with pytest.raises(
        ValueError, match=re.escape(f"{tmp_path}/README.md: the text between its two --- lines is not valid YAML")
    ):
        find_local_files(str(tmp_path))


def test_a_saved_dataset_is_the_files_that_it_names(tmp_path: Path) -> None:
    """A map has left its cache there, and an earlier save a shard more."""
    texts = datasets.Dataset.from_dict({"text": [f"text {n}" for n in range(6)]})
    datasets.DatasetDict(train=texts, test=texts.select(range(2))).save_to_disk(tmp_path)
    texts.save_to_disk(tmp_path / "train", num_shards=2)
    datasets.load_from_disk(str(tmp_path / "train")).map(lambda row: {"text": row["text"] + "!"})
    files, said = read(tmp_path)
    assert files == ["train/data-00000-of-00002.arrow", "train/data-00001-of-00002.arrow"]
    assert said == [
        "2 files are read; skipped: .arrow not listed in state.json (1), .arrow of the split test (1), "
        "cache-*.arrow (1), dataset_dict.json (1), dataset_info.json (2), state.json (2)"
    ]
    (tmp_path / "train" / files[0].removeprefix("train/")).unlink()
    with pytest.raises(
        ValueError, match=r"state\.json lists data-00000-of-00002\.arrow, which does not exist: copy the"
    ):
        find_local_files(str(tmp_path))
    (tmp_path / "train" / "state.json").write_text("[]")
    with pytest.raises(
        ValueError, match=r"state\.json is malformed: it must list the files of a saved dataset, as save_to"
    ):
        find_local_files(str(tmp_path))


@pytest.mark.parametrize("name", ["a::b", "s3://bucket", "zip::x", "[v2]", "file:", "né=,'"])
def test_a_local_path_may_be_called_anything(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """fsspec would chain file systems at `::`, and take what stands before `://` for a protocol."""
    make(tmp_path / name, {"data/a.jsonl": "", "README.md": CARD.format("- data_files: data/*")})
    monkeypatch.chdir(tmp_path)
    for path, key in ((name, "data/a.jsonl"), (f"{name}/data/a.jsonl", "a.jsonl")):
        files = find_local_files(path)
        assert list(files) == [key]
        corpus = FileCorpus(files, fields={"text": "text"}, origin={}, max_record_mb=1)
        documents = [document for chunk in corpus.chunks(0, 0) for _, document in corpus.documents(0, chunk)]
        assert documents == ["data/a.jsonl"]
        assert corpus.files[0].n_bytes > 0


def test_a_pattern_reads_hidden_files_only_if_it_spells_them(tmp_path: Path) -> None:
    make(tmp_path, dict.fromkeys(["a.txt", ".x/b.txt", ".c.txt", "README.md", "test.txt", "cache-1.arrow"], ""))
    assert read(f"{tmp_path}/**/*") == (
        ["a.txt", "test.txt"],
        [
            "files of several splits are read, because the path is a pattern: no split (1), test (1)",
            "2 files are read; skipped: README.md (1), cache-*.arrow (1), hidden files (2)",
        ],
    )
    assert read(f"{tmp_path}/.x/*")[0] == ["b.txt"]
    assert read(f"{tmp_path}/.*.txt")[0] == [".c.txt"]
    assert read(f"{tmp_path}/**/README.md")[0] == ["README.md"]
    assert read(f"{tmp_path}/*.md") == (["README.md"], [])
    assert read(f"{tmp_path}/cache-*.arrow")[0] == ["cache-1.arrow"]


def test_of_a_pattern_it_is_said_that_files_of_several_splits_are_read(tmp_path: Path) -> None:
    make(tmp_path / "test", dict.fromkeys(["train/a.jsonl", "train/b.jsonl", "held/validation-0.jsonl"], ""))
    said = "files of several splits are read, because the path is a pattern: train (2), validation (1)"
    assert read(f"{tmp_path}/test/**/*.jsonl")[1] == [said]
    assert not read(f"{tmp_path}/test/held/*.jsonl")[1]


def test_the_names_that_datasets_knows_are_known() -> None:
    assert set(datasets.data_files.FILES_TO_IGNORE) == set(_DESCRIPTIONS)
    theirs = {str(split): set(words) for split, words in datasets.data_files.SPLIT_KEYWORDS.items()}
    assert theirs == _SPLITS
