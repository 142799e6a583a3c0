"""The help, version and tab completion of the commands."""

import re
import shlex
import sys
from typing import Any

import pytest
import yaml

import command_runner
from data_modules import Curriculum
from running.config.command_help import command_help, list_settings, version
from running.config.command_line_check import check_command_line
from running.config.compose import compose_config, flatten
from running.config.quote_for_hydra import quote_text_settings
from running.config.settings_parser import build_section
from tests.conftest import ROOT, start_command

COMMANDS = ["convert", "evaluate", "generate", "plan", "prepare", "report", "train", "verify"]


def asked(
    command: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """What a command prints for flags such as --help."""
    monkeypatch.setattr(sys, "argv", [f"{command}.py", *arguments])
    command_runner.run_command_line(lambda: pytest.fail("Hydra was started"), command)
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_three_examples_that_compose(command: str) -> None:
    examples = re.findall(rf"^python {command}\.py[^…<>\n]*$", command_help(command), flags=re.MULTILINE)
    assert len(examples) == 3
    for example in examples:
        check_command_line(command, quote_text_settings(shlex.split(example, comments=True)[2:]))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_each_setting_is(command: str) -> None:
    """Every setting in conf/ needs a comment on its line."""
    said = command_help(command)
    for setting in list_settings(command):
        assert setting.meaning, f"conf/{command}.yaml: {setting.key} has no comment behind it"
        assert f"  {setting.key}={setting.default} " in said
    assert said.startswith(f"python {command}.py ")


def test_help_knows_all_settings_and_groups() -> None:
    config = compose_config("generate")
    assert {s.key for s in list_settings("generate")} == {key for key, _ in flatten(config)}
    said = command_help("plan")
    for line in ("  plan.mfu=", "  max_steps=", "  optimizer=adamw ", "  callbacks.checkpoints={every: 100, keep: 3, "):
        assert f"\n{line}" in said


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_the_values_of_the_command_without_settings(command: str) -> None:
    config = dict(flatten(compose_config(command)))
    for setting in list_settings(command):
        assert "???" not in setting.default
        assert "\n" not in setting.default
        assert "${" not in setting.default
        if setting.key in config:
            assert yaml.safe_load(setting.default) == config[setting.key], setting.key


def test_help_is_ours(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked("train", ["--help", "experiment=quickstart"], monkeypatch, capsys) == command_help("train") + "\n"
    assert asked("generate", ["-h"], monkeypatch, capsys) == command_help("generate") + "\n"


def test_the_version_is_ours(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        asked("train", ["--version"], monkeypatch, capsys)
    assert end.value.code == 0
    assert capsys.readouterr().out == f"{version()}\n"
    assert f'version = "{version().removeprefix("gpt-lightning ")}"' in (ROOT / "pyproject.toml").read_text()


def test_the_tab_key_completes_settings_and_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own, as a shell asks Hydra."""
    monkeypatch.setenv("COMP_LINE", "python train.py experiment=mod")
    answer = start_command("train.py", ["query=bash"], "-sc")
    assert (answer.stdout, answer.stderr) == ("experiment=modern experiment=modern_micro\n", "")


@pytest.mark.parametrize("arguments", [[], ["bash"], ["install=tcsh"], ["install=bash", "query=bash"]])
def test_another_question_about_completion_is_refused(arguments: list[str]) -> None:
    with pytest.raises(ValueError, match=r"^-sc needs install, uninstall or query with a shell"):
        check_command_line("train", ["-sc", *arguments])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m", "hydra/launcher=slurm", "seed=1,2"], "the choices are basic, .* need pip install -e '.\\[slurm\\]'"),
        (
            ["-m", "hydra/sweeper=ax", "seed=1,2"],
            "the choices are basic, .* optuna needs pip install -e '.\\[optuna\\]'",
        ),
        (
            ["+experiment=quickstart"],
            "^experiment is already in the config: type it without \\+, as experiment=quickstart\\.$",
        ),
        (["++model=micro"], "^model is already in the config: type it without \\+, as model=micro\\.$"),
    ],
)
def test_a_choice_that_cannot_be_is_answered_with_what_can(arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        check_command_line("train", arguments)
    assert len(str(refusal.value).splitlines()) == 1


def test_a_misspelt_key_of_a_file_is_answered_with_the_right_one() -> None:
    curriculum: dict[str, Any] = {"keyframe": {"start": {"at": 0, "weights": {"c4": 1}}}}
    with pytest.raises(ValueError, match=r"^curriculum: .*'keyframe': did you mean keyframes\?$"):
        build_section(Curriculum, "curriculum", curriculum)
    assert isinstance(Curriculum(keyframes=curriculum["keyframe"]), Curriculum)
