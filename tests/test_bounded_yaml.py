"""YAML is bounded wherever it is read: what its aliases describe, and how deep it nests."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from analysis.comparison.read_runs import UnreadableFile
from analysis.comparison.read_runs import _config as read_compared
from data_modules.corpora import find_local_files
from gpt_lightning.bounded_yaml import MAX_DEPTH, MAX_SIZE, check_yaml_bounds
from running.config.command_line_check import check_command_line
from running.config.compose import read_config

LAUGHS = "\n".join(["l0: &l0 [x, x]", *(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 9))])
BOMBS = {
    LAUGHS: "it contains more than 100,000 values, including those repeated by aliases",
    "a: &a "
    + "x" * 6_400
    + "\nb: &b ["
    + "*a, " * 100
    + "]\nc: ["
    + "*b, " * 100
    + "]": "it contains more than 100,000",
    "a: &a [*a]": "the alias *a does not refer to a complete value before it",
    "a: " + "[" * 5000 + "]" * 5000: "its values are nested more than 50 levels deep",
    "a: " + "{b: " * 5000 + "}" * 5000: "its values are nested more than 50 levels deep",
    "a:\n" + "".join(" " * n + "- \n" for n in range(1, 300)): "its values are nested more than 50 levels deep",
}


def read_run(folder: Path, text: str) -> None:
    (folder / "config.yaml").write_text(text)
    read_config(folder / "config.yaml")


def read_card(folder: Path, text: str) -> None:
    (folder / "README.md").write_text(f"---\n{text}\n---\n")
    find_local_files(str(folder))


def read_by_hydra(folder: Path, text: str) -> None:
    """As the config of a folder that the command line adds: here a curriculum."""
    (folder / "curriculum").mkdir()
    (folder / "curriculum" / "mine.yaml").write_text(text)
    check_command_line("train", ["--config-dir", str(folder), "curriculum=mine"])


def read_whole(folder: Path, text: str) -> None:
    (folder / "mine.yaml").write_text(text)
    check_command_line("train", ["--config-path", str(folder), "--config-name", "mine"])


READERS: dict[Callable[[Path, str], None], str] = {
    read_run: "{}/config.yaml is not valid YAML, or contains something other than plain values: ",
    read_card: "{}/README.md: the text between its two --- lines is not valid YAML (",
    read_by_hydra: "{}/curriculum/mine.yaml is not valid YAML, or contains something other than plain values: ",
    read_whole: "{}/mine.yaml is not valid YAML, or contains something other than plain values: ",
}


@pytest.mark.parametrize("text", BOMBS, ids=range(len(BOMBS)))
@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
def test_yaml_without_bounds_is_refused_in_one_sentence(
    read: Callable[[Path, str], None], text: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=re.escape(READERS[read].format(tmp_path) + BOMBS[text])) as refused:
        read(tmp_path, text)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", BOMBS, ids=range(len(BOMBS)))
def test_a_run_that_is_compared_is_read_within_bounds(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UnreadableFile, match=r"^config\.yaml (is not YAML|describes no model)"):
        read_compared(tmp_path / "config.yaml")


def test_what_people_write_is_within_the_bounds(tmp_path: Path) -> None:
    """Anchors, merged mappings, as many levels as are allowed, and a large file."""
    shared = "base: &base {a: 1, b: [2, 3]}\nother: {<<: *base, c: *base}\n"
    deep = "deep: " + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1) + "\n"
    many = "many:\n" + "".join(f"  key{n}: {n}\n" for n in range(5000))
    (tmp_path / "config.yaml").write_text(shared + deep + many)
    content = read_config(tmp_path / "config.yaml")
    assert content["other"] == {"a": 1, "b": [2, 3], "c": {"a": 1, "b": [2, 3]}}
    assert content == yaml.safe_load(shared + deep + many)
    check_yaml_bounds("a: [" + "1, " * (MAX_SIZE - 10) + "]")
