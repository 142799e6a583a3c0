"""A validation split that says little is said when it is made, with the setting that gives more."""

from pathlib import Path

import numpy as np
import pytest

from running.commands.prepare import prepare
from running.config.compose import compose_config

EOT = 50256


def said(path: Path, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    overrides = [
        "source=local",
        "tokenizer=gpt2",
        f"data_dir={path.parent / 'data'}",
        f"path={path}",
        "workers=1",
        *more,
    ]
    prepare(compose_config("prepare", overrides))
    return capsys.readouterr().out


def test_of_few_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The share that is named gives 5,000 tokens and more."""
    lines = [f'{{"text": "{n}: {"word " * 50}"}}' for n in range(2000)]
    (tmp_path / "texts.jsonl").write_text("\n".join(lines))
    printed = said(tmp_path / "texts.jsonl", capsys)
    assert " tokens in " in printed
    assert "the validation split has only " in printed
    assert (
        "prepare again with more text, or with sources.local.val_fraction=0.07, or (for a few long texts) with "
        in printed
    )
    again = said(tmp_path / "texts.jsonl", capsys, "name=again", "sources.local.val_fraction=0.07")
    assert "the validation split has only" not in again


@pytest.mark.parametrize("ends", [1, 2])
def test_of_a_single_document(ends: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of shards of others too, which have no split=tail."""
    ids = np.random.default_rng(0).integers(0, EOT, 20_000, dtype=np.uint16)
    val = ids[:8_000].copy()
    val[np.linspace(0, 7_999, ends + 1).astype(int)[1:]] = EOT
    (tmp_path / "theirs").mkdir()
    ids.tofile(tmp_path / "theirs" / "train.bin")
    val.tofile(tmp_path / "theirs" / "val.bin")
    printed = said(tmp_path / "theirs", capsys, "format=nanogpt")
    assert ("the validation split has only 8,000 tokens in 1 document: delete " in printed) == (ends == 1)
    assert "split=tail" not in printed


def test_of_chats_which_no_tail_is_cut_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [f'{{"instruction": "{n}?", "output": "{n}."}}' for n in range(20)]
    (tmp_path / "chats.jsonl").write_text("\n".join(lines))
    printed = said(
        tmp_path / "chats.jsonl", capsys, "source=alpaca", "tokenizer=gpt2_chatml", "sources.alpaca.fields.input=null"
    )
    assert "prepare again with more text, or with sources.alpaca.val_fraction=0.5\n" in printed
