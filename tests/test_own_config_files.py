"""Mistakes in the user's own config files: the message names the file and what to change."""

import re
from pathlib import Path

import pytest

from running.config.command_line_check import check_command_line


@pytest.mark.parametrize("flags", [[], ["-m"]])
def test_the_list_of_choices_has_the_users_own(flags: list[str], tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "notebooks.yaml").write_text("# @package sources.notebooks\n")
    sentence = rf"there is no such choice; conf/source has alpaca, .*; {tmp_path}/source has notebooks; for your own"
    with pytest.raises(ValueError, match=sentence):
        check_command_line("prepare", [*flags, "--config-dir", str(tmp_path), "source=notebook"])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("max_stps: 4\n", "there is no setting max_stps: did you mean max_steps?"),
        (
            "max_steps: 4\nschedule: {warmup_stps: 0.05}\n",
            "there is no setting schedule.warmup_stps: did you mean schedule.warmup_steps?",
        ),
    ],
)
def test_a_misspelt_key_of_a_file_is_named_and_not_the_missing_one(text: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "experiment" / "mine.yaml"
    file.parent.mkdir()
    file.write_text(f"# @package _global_\nname: mine\nglobal_batch: 8\nmicro_batch: 8\n{text}")
    with pytest.raises(ValueError, match=f"^{re.escape(f'{file}: {sentence}')}$"):
        check_command_line("train", ["--config-dir", str(tmp_path), "experiment=mine"])


@pytest.mark.parametrize(
    ("command", "choice", "text", "sentence"),
    [
        ("prepare", "source=nb", "hub: null\n", "must be '# @package sources.nb', which is missing."),
        (
            "prepare",
            "source=nb",
            "# @package source.nb\nhub: null\n",
            "must be '# @package sources.nb', not '# @package source.nb'.",
        ),
        ("train", "experiment=mine", "model: {n_layers: 2}\n", "must be '# @package _global_', which is missing."),
    ],
)
def test_a_file_without_the_right_package_is_named(
    command: str, choice: str, text: str, sentence: str, tmp_path: Path
) -> None:
    file = tmp_path / f"{choice.replace('=', '/')}.yaml"
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(ValueError, match=f"^{re.escape(f'{file}: the first line {sentence}')}$"):
        check_command_line(command, ["--config-dir", str(tmp_path), choice])
