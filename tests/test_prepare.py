"""The verb that makes shards, on a small corpus of this machine."""

import json
from pathlib import Path

import pytest

import launch
from prepare import prepare


def test_a_source_is_prepared_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = launch.compose_config("prepare", ["source=readmes", "tokenizer=gpt2_chatml", f"data_dir={tmp_path}"])
    prepare(config)
    assert "readmes: prepared in" in capsys.readouterr().out
    path = tmp_path / "gpt2_chatml" / "readmes" / "source.json"
    information = json.loads(path.read_text())
    assert information["tokenizer"]["name"] == "gpt2_chatml"
    assert information["licence"]
    assert information["origin"] == {"_target_": "data_modules.corpora.readmes"}
    written = path.stat().st_mtime_ns
    prepare(config)
    assert "readmes: already in" in capsys.readouterr().out
    assert path.stat().st_mtime_ns == written


def test_a_tokenizer_is_trained_first_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["tokenizer.name=small", "tokenizer.model_vocab_size=600", "tokenizer.train_on=[readmes]"]
    config = launch.compose_config("prepare", ["source=readmes", *options, f"data_dir={tmp_path}"])
    prepare(config)
    assert "small: trained" in capsys.readouterr().out
    tokenizer = (tmp_path / "small" / "tokenizer.json").read_bytes()
    prepare(config)
    assert "small: trained" not in capsys.readouterr().out
    assert (tmp_path / "small" / "tokenizer.json").read_bytes() == tokenizer
    (tmp_path / "small" / "tokenizer.json").unlink()
    options[1] = "tokenizer.model_vocab_size=500"
    with pytest.raises(ValueError, match="was made with another tokenizer small: delete it and prepare it again"):
        prepare(launch.compose_config("prepare", ["source=readmes", *options, f"data_dir={tmp_path}"]))
