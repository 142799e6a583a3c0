"""The settings of sources and tasks: every shipped file is read, and a wrong setting is one sentence that names it."""

import re
from pathlib import Path
from typing import Any

import pytest

from running.config import compose
from running.config.compose import group_choices, read_choice
from running.config.source_config import SourceConfig, parse_composed_source, parse_source, read_source
from running.evaluation.task_config import read_task
from running.training.callback_builders import build_callbacks

SOURCE: dict[str, Any] = {
    "hub": {"id": "a/b", "config": None, "split": "train"},
    "fields": {"text": "text"},
    "licence": "MIT",
    "limit_tokens": None,
    "val_fraction": 0.1,
    "split": "hash",
}


@pytest.mark.parametrize("name", group_choices("source"))
def test_every_source_is_read(name: str) -> None:
    config = read_source(name)
    assert (config.hub is None) or (config.corpus is None)
    assert config.fallback is None or isinstance(read_source(config.fallback), SourceConfig)
    assert set(read_choice("source", name)) <= set(vars(config))


def test_the_limit_all_is_no_limit() -> None:
    assert parse_source("x", SOURCE | {"limit_tokens": "all"}) == parse_source("x", SOURCE)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"licenze": "MIT"}, "there is no setting sources.x.licenze: did you mean sources.x.licence?"),
        ({"field": {"text": "text"}}, "there is no setting sources.x.field: did you mean sources.x.fields?"),
        ({"hub": {"id": "a/b", "split": "train"}}, "the setting sources.x.hub.config has no value."),
        ({"hub": "a/b"}, "sources.x.hub is 'a/b': it must be a group of settings."),
        ({"split": "head"}, "sources.x.split is 'head': it must be hash or tail."),
        ({"limit_tokens": "many"}, "sources.x.limit_tokens is 'many': it must be a number above 0, or null."),
        (
            {"expected": {"loss_bearing": 1.5}},
            "expected.loss_bearing is 1.5: it must be above 0 and at most 1.",
        ),
        (
            {"expected": {"token": 3}},
            "there is no setting sources.x.expected.token: did you mean sources.x.expected.tokens?",
        ),
    ],
)
def test_a_wrong_setting_of_a_source_is_named(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        parse_source("x", SOURCE | wrong)


def test_an_unknown_setting_is_named_before_a_missing_one_with_the_users_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "x.yaml").touch()
    monkeypatch.setattr(compose, "user_folders", lambda: {"--config-dir": tmp_path})
    content = {"license" if key == "licence" else key: value for key, value in SOURCE.items()}
    sentence = f"{tmp_path}/source/x.yaml: there is no setting sources.x.license: did you mean sources.x.licence?"
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        parse_composed_source("x", content)


@pytest.mark.parametrize("key", sorted(SOURCE))
def test_a_missing_setting_of_a_source_is_named(key: str) -> None:
    sentence = f"sources.x.{key} has no value: conf/source has examples to copy."
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        parse_source("x", {name: value for name, value in SOURCE.items() if name != key})


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for group in ("source", "task"):
        (tmp_path / group).mkdir()
    monkeypatch.setattr(compose, "CONF", tmp_path)
    return tmp_path


def test_the_file_of_a_source_is_named(conf: Path) -> None:
    (conf / "source" / "mine.yaml").write_text("hub: null\n")
    with pytest.raises(ValueError, match=r"/source/mine\.yaml: sources\.mine\.fields has no value: "):
        read_source("mine")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("kind: quiz", "kind is 'quiz': it must be one of text, questions, conversations, writing."),
        ("kind: text\nstride: 3", "there is no setting task.stride."),
        ("kind: conversations\nhub: null", "the setting task.fields has no value."),
        (
            "{kind: questions, protocol: chat, hub: null, context: a, answers: b, gold: 0}",
            "task.protocol is 'chat': it must be harness or completion.",
        ),
        (
            "{kind: questions, protocol: harness, hub: null, context: '{a', answers: b, gold: 0}",
            "the template '{a' is malformed: ",
        ),
        (
            "{kind: questions, protocol: harness, hub: null, context: a, answers: b, gold: null}",
            "task.gold is None: it must be a string or a whole number.",
        ),
        (
            "{kind: writing, language: null, mode: text, prompts: a, samples: 1, max_new_tokens: 1, temperature: 1, "
            "top_p: null, seed: 0}",
            "task.prompts is 'a': it must be a list of strings.",
        ),
    ],
)
def test_a_wrong_setting_of_a_task_names_it_and_its_file(text: str, sentence: str, conf: Path) -> None:
    (conf / "task" / "mine.yaml").write_text(text)
    with pytest.raises(ValueError, match=rf"/task/mine\.yaml: {re.escape(sentence)}"):
        read_task("mine")


def test_a_wrong_task_of_a_callback_is_named() -> None:
    node = {"_target_": "callbacks.ZeroShotEvaluation", "every": 1, "name": "piqa", "questions": 1}
    task = read_choice("task", "piqa") | {"protokol": "harness"}
    with pytest.raises(
        ValueError, match=r"there is no setting callbacks\.mine\.task\.protokol: did you mean .*protocol\?"
    ):
        build_callbacks({"mine": node | {"task": task}})
