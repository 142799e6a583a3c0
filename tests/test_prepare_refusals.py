"""prepare.py refuses a wrong setting in one sentence, and writes nothing."""

import re
from pathlib import Path

import pytest

from running.commands.prepare import prepare
from running.config.compose import compose_config
from running.config.quote_for_hydra import quote_text_settings


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["source=owt"], "for your own texts, type source=local name=owt path=…."),
        (["mode=prepar"], "mode is 'prepar': it must be one of prepare, join, inspect, verify."),
        (["path=x"], "path=x applies to a single source: choose it with source=…."),
        (["source=local"], "source local needs path=…: a file, a folder or a pattern."),
        (
            ["source=local", "path=nowhere"],
            "path=nowhere does not exist: it must be a file, a folder or a pattern that matches files.",
        ),
        (
            ["source=readmes", "path=x"],
            "source readmes is read by data_modules.corpora.readmes and has no path=: use source=local to read files.",
        ),
        (["source=readmes", "part=3/3"], "part=3/3: it must be k/n, for part k of n, counted from 0."),
        (["source=readmes", "on_bad_record=ignore"], "on_bad_record is ignore: it must be error or skip."),
        (
            ["source=readmes", "limit_tokens=many"],
            "limit_tokens is many: it must be a number of tokens, 1 or more, or all.",
        ),
        (["source=readmes", "workers=0"], "workers is 0: it must be a whole number, 1 or more, or null."),
        (["source=readmes", "limit_files=-1"], "limit_files is -1: it must be a whole number, 1 or more, or null."),
        (
            ["source=readmes", "limit_tokens=.inf"],
            "limit_tokens is .inf: it must be a number of tokens, 1 or more, or all.",
        ),
        (
            ["source=readmes", "name=a/b"],
            "name is 'a/b': it must consist of letters, digits, _, . and -, and must not start",
        ),
        (["source=[]"], "there is no source to prepare: choose one with source=…."),
        (["source=local", "path=x", "format=nanogpt", "part=0/2"], "format=nanogpt reads shards unchanged: part=0/2"),
        (
            ["source=readmes", "tokenizer=bpe_4096", "mode=verify"],
            "tokenizer.json does not exist: run mode=prepare, which trains",
        ),
        (
            ["source=local", "path=nowhere", "tokenizer=bpe_4096"],  # before the tokenizer is trained
            "path=nowhere does not exist: it must be a file, a folder or a pattern that matches files.",
        ),
        (["source=readmes", "tokenizer=bpe_4096", "tokenizer.train_on=[no]"], "train_on=['no']: it must be a list of"),
    ],
)
def test_a_wrong_setting_is_one_sentence(overrides: list[str], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        prepare(compose_config("prepare", quote_text_settings(["tokenizer=gpt2", *overrides, f"data_dir={tmp_path}"])))
    assert not list(tmp_path.rglob("*"))
