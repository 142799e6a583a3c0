"""prepare.py: the Python installation, files in the schema of every corpus of the hub, parts, tokenizers."""

import json
import os
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_modules import SourceShards
from gpt_lightning.tokenizer import load_tokenizer
from running.commands.prepare import prepare
from running.commands.train import train
from running.config.compose import compose_config, group_choices, read_choice
from running.config.quote_for_hydra import quote_text_settings
from tests.conftest import ROOT, TINY

INSTRUCTION_SOURCES = {"alpaca": "alpaca/alpaca_5000.json", "code_alpaca": "python_instruct/code_alpaca_2k.json"}
TRAINED = {"c4", "cosmopedia", "alpaca", "python"}  # by mixed_curriculum as it ships
TEXT_SOURCES = {
    "c4": "c4/*.json.gz",
    "cosmopedia": "cosmopedia",
    "fineweb": "fineweb/fineweb_10.jsonl",
    "fineweb_edu": "fineweb_edu",
    "local": "books",
}


def run(*overrides: str) -> None:
    """Prepare in this process: others take seconds to start, and the shards do not depend on them."""
    prepare(compose_config("prepare", ["workers=1", *quote_text_settings(list(overrides))]))


def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "prepare.py", *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


def source_json(folder: Path) -> Any:
    return json.loads((folder / "source.json").read_text())


@pytest.fixture(scope="module")
def hub_data(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with every source that conf/source names, made from files in the schema of the hub's."""
    files, data_dir = tmp_path_factory.mktemp("files"), tmp_path_factory.mktemp("data")
    paths = {name: shared_data / path for name, path in (TEXT_SOURCES | INSTRUCTION_SOURCES).items()}
    code = sorted(Path(json.__file__).parent.parent.glob("*.py"))[:60]
    records = [{"repo_name": "cpython", "path": f.name, "content": f.read_text(encoding="utf-8")} for f in code]
    paths["python"] = files / "file-000000000001.json"
    paths["python"].write_text("".join(json.dumps(record) + "\n" for record in records if record["content"]))
    alpaca = json.loads(paths["alpaca"].read_text())[:200]
    turns = [
        [{"role": "user", "content": r["instruction"]}, {"role": "assistant", "content": r["output"]}] for r in alpaca
    ]
    paths["smol_smoltalk"] = files / "train-00000.jsonl"
    conversations = [{"messages": a + b, "source": "made here"} for a, b in pairwise(turns)]
    paths["smol_smoltalk"].write_text("".join(json.dumps(record) + "\n" for record in conversations))
    for name, path in paths.items():
        run(f"source={name}", f"path={path}", "tokenizer=gpt2_chatml", f"data_dir={data_dir}")
    return data_dir / "gpt2_chatml"


def test_every_source_trains_from_files_of_its_schema(hub_data: Path, tmp_path: Path) -> None:
    """mixed_curriculum in small, with the sources that it does not name added to its last keyframe."""
    names = sorted(path.name for path in hub_data.iterdir())
    embedded = {"readmes", "pydoc", "docstrings", "stdlib"}
    assert set(names) == set(group_choices("source")) - embedded
    small = ["model.d_model=16", "model.n_layers=1", "model.n_heads=2", "model.d_ff=32", "model.max_seq_len=128"]
    sizes = ["max_steps=8", "global_batch=12", "micro_batch=6", "schedule.warmup_steps=2", "val_every=8"]
    more = [f"+curriculum.keyframes.settled.weights.{name}=0.2" for name in names if name not in TRAINED]
    watchers = ["callbacks.samples.every=8", "callbacks.samples.max_new_tokens=2", "data.val_sequences=2"]
    folders = [f"data_dir={hub_data.parent}", f"runs_dir={tmp_path}", "data.workers=0", "optimizer.fused=false"]
    config = compose_config("train", ["experiment=mixed_curriculum", *small, *sizes, *more, *watchers, *folders])
    final = train(config)
    assert final["step"] == 8
    assert {f"val/loss/{name}" for name in names} <= set(final)
    assert all(np.isfinite(final[f"val/loss/{name}"]) for name in names)


def test_of_a_copy_of_the_repository_one_configuration_is_read(shared_data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "c4"
    for config, split, name in (("en", "train", "01"), ("en", "validation", "02"), ("noclean", "train", "03")):
        (copy / config).mkdir(parents=True, exist_ok=True)
        shutil.copy(shared_data / "c4" / f"olmo_c4-sample.{name}.json.gz", copy / config / f"c4-{split}.0.json.gz")
    data_files = "\n".join(
        f"- config_name: {config}\n  data_files:\n  - {{split: train, path: {config}/c4-train.*.json.gz}}"
        for config in ("en", "noclean")
    )
    (copy / "README.md").write_text(f"---\nconfigs:\n{data_files}\n---\n# C4\n")
    run("source=c4", f"path={copy}", "tokenizer=gpt2", f"data_dir={tmp_path}", "sources.c4.val_fraction=0.3")
    information = source_json(tmp_path / "gpt2" / "c4")
    assert [file["name"] for file in information["files"]] == ["en/c4-train.0.json.gz"]
    assert information["records"] == 10


def test_sources_say_where_they_come_from(hub_data: Path) -> None:
    for folder in hub_data.iterdir():
        information = source_json(folder)
        config = read_choice("source", folder.name)
        assert information["licence"] == config["licence"]
        assert information["origin"]["fields"] == config["fields"]
        assert information["files"]
        assert information["splits"]["val"]["documents"] >= 1
        assert SourceShards(folder).train.masked == ("text" not in config["fields"])


def test_alpaca_is_88_tokens_a_record_of_which_60_bear_loss(hub_data: Path) -> None:
    splits = source_json(hub_data / "alpaca")["splits"]
    totals = {key: splits["train"][key] + splits["val"][key] for key in ("documents", "tokens", "loss_bearing_tokens")}
    assert totals["documents"] == 5000
    assert totals["tokens"] / totals["documents"] == pytest.approx(88, abs=1.5)
    assert totals["loss_bearing_tokens"] / totals["documents"] == pytest.approx(60, abs=1.5)


def test_shakespeare_is_split_as_in_nanogpt(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "books" / "tinyshakespeare.txt"
    rule = ["sources.local.split=tail", "sources.local.val_fraction=0.1"]
    run("source=local", "name=shakespeare", f"path={path}", "tokenizer=gpt2", f"data_dir={tmp_path}", *rule)
    splits = source_json(tmp_path / "gpt2" / "shakespeare")["splits"]
    assert (splits["train"]["tokens"], splits["val"]["tokens"]) == (301_966, 36_059)


def test_a_source_is_prepared_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("source=readmes", "tokenizer=gpt2_chatml", f"data_dir={tmp_path}")
    assert "readmes: prepared in" in capsys.readouterr().out
    path = tmp_path / "gpt2_chatml" / "readmes" / "source.json"
    information = json.loads(path.read_text())
    assert information["tokenizer"]["name"] == "gpt2_chatml"
    assert information["licence"]
    assert information["origin"] == {"_target_": "data_modules.corpora.readmes"}
    written = path.stat().st_mtime_ns
    run("source=readmes", "tokenizer=gpt2_chatml", f"data_dir={tmp_path}")
    assert "readmes: already in" in capsys.readouterr().out
    assert path.stat().st_mtime_ns == written
    with pytest.raises(
        ValueError, match="was made with limit_tokens=None, and now limit_tokens=1000: delete the folder"
    ):
        run("source=readmes", "tokenizer=gpt2_chatml", f"data_dir={tmp_path}", "limit_tokens=1000")


def test_a_source_of_another_path_is_another_source(shared_data: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    shutil.copytree(shared_data / "books", texts)
    options = ["source=local", "tokenizer=gpt2", f"data_dir={tmp_path / 'data'}"]
    run(*options, f"path={texts}")
    run(*options, f"path={texts}", "on_bad_record=skip")  # there was none
    with pytest.raises(ValueError, match=r"was made with path=.*, and now path="):
        run(*options, f"path={texts / '11-0.txt'}")
    with pytest.raises(ValueError, match=re.escape("nowhere does not exist: it must be a file, a folder or a pattern")):
        run(*options, f"path={tmp_path / 'nowhere'}")
    with pytest.raises(ValueError, match="was made with format=None, and now format=nanogpt"):
        run(*options, f"path={texts}", "format=nanogpt")
    (texts / "zz.txt").write_text("a further text, after all the others")
    with pytest.raises(ValueError, match=r"the files in .* have changed since .* was prepared: delete "):
        run(*options, f"path={texts}")


def test_what_a_kill_left_behind_is_cleared_away(tmp_path: Path) -> None:
    """Of a join that was stopped when only its parts had to be removed yet."""
    options = ["source=readmes", "tokenizer=gpt2", f"data_dir={tmp_path}"]
    run(*options)
    (tmp_path / "gpt2" / ".readmes.unfinished" / "0_of_1").mkdir(parents=True)
    run(*options)
    assert [path.name for path in (tmp_path / "gpt2").iterdir()] == ["readmes"]


def test_a_tokenizer_is_trained_first_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["tokenizer.name=small", "tokenizer.model_vocab_size=600", "tokenizer.train_on=[readmes]"]
    options += ["tokenizer.train_mb=0.2", "limit_tokens=50000"]
    run("source=readmes", *options, f"data_dir={tmp_path}")
    printed = capsys.readouterr().out
    assert "small: trained" in printed
    report = json.loads((tmp_path / "small" / "tokenizer_report.json").read_text())
    assert 1 < report["readmes"]["small"] < report["readmes"]["gpt2"] < 6
    assert f"{report['readmes']['gpt2']:.3f}" in printed
    tokenizer = (tmp_path / "small" / "tokenizer.json").read_bytes()
    run("source=readmes", *options, f"data_dir={tmp_path}")
    assert "small: trained" not in capsys.readouterr().out
    assert (tmp_path / "small" / "tokenizer.json").read_bytes() == tokenizer
    run("source=readmes", *options, f"data_dir={tmp_path / 'again'}")
    assert (tmp_path / "again" / "small" / "tokenizer.json").read_bytes() == tokenizer
    (tmp_path / "small" / "tokenizer.json").unlink()
    options[1] = "tokenizer.model_vocab_size=500"
    with pytest.raises(ValueError, match="was made with another tokenizer small: delete it and prepare it again"):
        run("source=readmes", *options, f"data_dir={tmp_path}")


def test_a_tokenizer_of_other_corpora(shared_data: Path, tmp_path: Path) -> None:
    """As bpe_32k is trained on the hub's C4 and Python, but on files, and no validation document is among its texts."""
    paths = [f"sources.c4.path={shared_data / 'c4'}", f"sources.fineweb_edu.path={shared_data / 'fineweb_edu'}"]
    options = ["tokenizer=bpe_32k", "tokenizer.model_vocab_size=2000", "tokenizer.train_on=[c4,fineweb_edu]"]
    run("source=[c4,fineweb_edu]", *paths, *options, f"data_dir={tmp_path}")
    report = json.loads((tmp_path / "bpe_32k" / "tokenizer_report.json").read_text())
    assert set(report) == {"c4", "fineweb_edu"}
    assert load_tokenizer(tmp_path / "bpe_32k").vocab_size == 2000
    assert (tmp_path / "bpe_32k" / "c4" / "source.json").is_file()


def test_an_unreachable_hub_is_named_and_python_has_a_stand_in(tmp_path: Path) -> None:
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")}
    answer = call("source=c4", "tokenizer=gpt2_chatml", f"data_dir={tmp_path}", **offline)
    assert answer.returncode == 1
    assert "allenai/c4 cannot be reached on the Hugging Face hub" in answer.stderr
    assert "set path=… to read a local copy of its files" in answer.stderr
    answer = call("source=python", "tokenizer=gpt2_chatml", f"data_dir={tmp_path}", **offline)
    assert "python: using the fallback code_alpaca instead" in answer.stdout
    assert "sahil2801/CodeAlpaca-20k cannot be reached" in answer.stderr
    assert not list(tmp_path.rglob("*.unfinished"))


def test_parts_are_prepared_side_by_side_and_joined(shared_data: Path, tmp_path: Path) -> None:
    """As on a cluster: Hydra's submitit launcher, here with processes of this machine."""
    options = [f"path={shared_data / 'c4'}", "source=c4", "tokenizer=gpt2", "limit_tokens=all", "group_mb=0.005"]
    options = [*quote_text_settings(options), "sources.c4.val_fraction=0.2", "workers=1"]
    run(*options, f"data_dir={tmp_path / 'one'}")
    many = [*options, f"data_dir={tmp_path / 'many'}"]
    answer = call("-m", "hydra/launcher=submitit_local", *many, "part=0/2,1/2")
    assert answer.returncode == 0, answer.stderr
    shutil.move(tmp_path / "many/gpt2/.c4.unfinished/1_of_2/part.json", tmp_path / "kept")
    with pytest.raises(ValueError, match="c4 cannot be joined: part 1/2 is missing or incomplete"):
        run(*many, "mode=join")
    shutil.move(tmp_path / "kept", tmp_path / "many/gpt2/.c4.unfinished/1_of_2/part.json")
    run(*many, "mode=join")
    one, joined = tmp_path / "one/gpt2/c4", tmp_path / "many/gpt2/c4"
    assert {p.relative_to(one): p.read_bytes() for p in one.rglob("*.*")} == {
        p.relative_to(joined): p.read_bytes() for p in joined.rglob("*.*")
    }
    with pytest.raises(ValueError, match="c4: there are no parts to join"):
        run(*many, "mode=join")


def test_a_run_prepares_what_it_lacks(tiny_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bpe_512"
    shutil.copytree(tiny_data / "bpe_512", folder)
    shutil.rmtree(folder / "readmes")
    there = {path: path.stat().st_mtime_ns for path in folder.rglob("source.json")}
    options = ["data.prepare=missing", "+data.limit_tokens.readmes=20000", f"data_dir={tmp_path}"]
    config = compose_config("train", [*TINY, *options, f"runs_dir={tmp_path}/runs", "max_steps=3", "val_every=3"])
    assert train(config)["step"] == 3
    assert source_json(folder / "readmes")["request"]["limit_tokens"] == 20000
    assert {path: path.stat().st_mtime_ns for path in there} == there


def test_inspect_and_verify(hub_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["source=alpaca", "tokenizer=gpt2_chatml", f"data_dir={hub_data.parent}"]
    run(*options, "mode=inspect")
    printed = capsys.readouterr().out
    assert "licence    CC-BY-NC-4.0" in printed
    assert printed.count("⟦tokens without loss⟧") == 10
    assert "⟦<|im_start|>user\n" in printed
    assert (hub_data / "alpaca" / "document_lengths.png").stat().st_size > 10_000
    run(*options, "mode=verify")
    assert "every shard" in capsys.readouterr().out
    shard = hub_data / "alpaca" / "val" / "mask_0000.npy"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(
        ValueError, match=rf"mask_0000\.npy differs from source\.json between bytes 0 and {len(content):,}"
    ):
        run(*options, "mode=verify")
