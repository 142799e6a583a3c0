"""Training that begins with weights from elsewhere."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import command_runner
from gpt_lightning import load_model
from gpt_lightning.convert import model_from_initial_weights, to_hf, to_native
from gpt_lightning.tokenizer import load_tokenizer, train_bpe
from running.commands.plan import plan
from running.commands.train import train
from running.config.compose import compose_config
from tests.conftest import TINY
from tests.gpt_lightning.tiny_models import GPT2, VOCAB_SIZE, build
from tests.run_files import as_if_killed

SHORT = ["max_steps=4", "val_every=4", "callbacks.samples.every=4"]


def test_a_run_begins_with_exported_weights_and_a_larger_vocabulary(
    tiny_config: Callable[..., dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a learning rate of nothing the weights stay what they were: Hugging Face's, and the mean for new ids."""
    sizes = {"max_seq_len": 32, "d_model": 32, "n_layers": 2, "n_heads": 2, "d_ff": 64}
    model = build(**GPT2 | sizes, vocab_size=500)
    to_hf(model, tmp_path / "hf", format="gpt2")
    choices = [f"model.{key}={value}" for key, value in GPT2.items()]
    settings = ["name=run", f"init_from={tmp_path / 'hf'}", "optimizer.lr=1e-30", "optimizer.weight_decay=0", *choices]
    train(tiny_config(*settings, "max_steps=4"))
    assert "starting from the weights of" in capsys.readouterr().out
    trained = load_model(tmp_path / "runs" / "run").state_dict()
    for key, value in model.state_dict().items():
        torch.testing.assert_close(trained[key][: len(value)], value, msg=key)
    mean = model.embedding.weight.mean(dim=0).expand(12, -1)
    torch.testing.assert_close(trained["embedding.weight"][500:], mean)


@pytest.fixture
def exported(tiny_data: Path, tmp_path: Path) -> Path:
    """A model of other sizes and choices than every config's, with more ids than its tokenizer."""
    model = build(**GPT2, max_seq_len=48, n_layers=3, vocab_size=640)
    to_hf(model, tmp_path / "hf", tokenizer=load_tokenizer(tiny_data / "bpe_512"), format="gpt2")
    return tmp_path / "hf"


def test_a_run_takes_the_architecture_of_its_weights(exported: Path, tiny_data: Path, tmp_path: Path) -> None:
    settings = [setting for setting in TINY if not setting.startswith("model.")]
    settings += [f"data_dir={tiny_data}", f"runs_dir={tmp_path / 'runs'}", f"init_from={exported}", *SHORT]
    config = compose_config("train", [*settings, "experiment=quickstart"])
    theirs = load_model(exported).config
    assert {key: config["model"][key] for key in GPT2} == GPT2
    assert {config["model"][key] == getattr(theirs, key) for key in ("max_seq_len", "n_layers", "vocab_size")} == {True}
    assert config["model"]["dropout"] == compose_config("train", ["experiment=quickstart"])["model"]["dropout"]
    train(config)
    assert load_model(tmp_path / "runs" / config["name"]).config.n_layers == 3
    with pytest.raises(ValueError, match=r"has a different architecture: set model.n_layers=3 to"):
        train(compose_config("train", [*settings, "name=other", "model.n_layers=2"]))
    with pytest.raises(ValueError, match=r"has a different architecture: set model\.max_seq_len=48 "):
        train(compose_config("train", [*settings, "name=other", "model=micro", "model.vocab_size=640"]))
    assert not (tmp_path / "runs" / "other" / "config.yaml").exists()


def test_a_command_line_with_init_from_says_the_architecture(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To Hydra, and through it to the jobs of a multirun, whose directories are called by their axes alone."""
    typed = [f"init_from={exported}", "model.dropout=0.3", "model.n_layers=3"]
    said: list[str] = []
    monkeypatch.setattr("sys.argv", ["train.py", *typed])
    command_runner.run_command_line(lambda: said.extend(sys.argv[1:]), "train")
    assert said[: len(typed)] == typed
    assert {"model.d_model=32", "model.norm=layernorm", "model.n_kv_heads=null"} < set(said)
    assert sum(setting.startswith("model.n_layers=") for setting in said) == 1


def test_a_missing_model_is_refused_by_plan_and_train(tiny_overrides: list[str], tmp_path: Path) -> None:
    settings = [*tiny_overrides, "name=run", f"init_from={tmp_path}/nowhere"]
    for command in (plan, train):
        name = command.__name__
        with pytest.raises(
            ValueError, match="nowhere does not exist: it must be a run directory, a checkpoint, or the"
        ):
            command(compose_config(name, settings))
    assert not list(tmp_path.rglob("run"))


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    model = build(**GPT2)
    to_hf(model, tmp_path / "hf", format="gpt2")
    config = model.config
    free = replace(config, dropout=0.5, attention="manual", residual_init="zero", vocab_size=VOCAB_SIZE + 3)
    assert model_from_initial_weights(tmp_path / "hf", free).config == free
    with pytest.raises(ValueError, match=r"has a different architecture: set model.n_heads=4 model.norm=layernorm"):
        model_from_initial_weights(tmp_path / "hf", replace(config, n_heads=2, norm="rmsnorm"))
    with pytest.raises(ValueError, match=r"model.vocab_size is 90: it must be at least 97"):
        model_from_initial_weights(tmp_path / "hf", replace(config, vocab_size=90))
    to_hf(build(**GPT2, eot_id=3), tmp_path / "other", format="gpt2")
    with pytest.raises(ValueError, match="its end-of-text id is 3, and that of this run is 90"):
        model_from_initial_weights(tmp_path / "other", replace(config, eot_id=90))
    with pytest.raises(ValueError, match="nowhere does not exist"):
        model_from_initial_weights(tmp_path / "nowhere", config)


def test_the_id_at_which_generating_ends_is_no_tokenizer(
    tiny_config: Callable[..., dict[str, Any]], tiny_data: Path, tmp_path: Path
) -> None:
    """A Hugging Face folder of a chat model ends at the end of a turn; its tokenizer is the same."""
    config = tiny_config("name=run", f"init_from={tmp_path / 'hf'}", *SHORT)
    model = build(**{key: value for key, value in config["model"].items() if key != "attention"})
    to_hf(model, tmp_path / "hf", tokenizer=load_tokenizer(tiny_data / "bpe_512"), format="llama")
    path = tmp_path / "hf" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": 17}))
    train(config)


def test_weights_of_other_tokens_are_refused(
    tiny_config: Callable[..., dict[str, Any]], tiny_data: Path, tmp_path: Path
) -> None:
    train(tiny_config("name=first", *SHORT))
    model = load_model(tmp_path / "runs" / "first")
    (tmp_path / "other").mkdir()
    texts = ["other words make other tokens"] * 3
    train_bpe(texts, vocab_size=270, path=tmp_path / "other" / "tokenizer.json")
    for name, folder in (("same", tiny_data / "bpe_512"), ("strange", tmp_path / "other")):
        to_native(model, tmp_path / name, load_tokenizer(folder))
    train(tiny_config("name=second", f"init_from={tmp_path / 'same'}", *SHORT))
    with pytest.raises(
        ValueError,
        match=r"ids differ from those of bpe_512: copy .*/strange/tokenizer\.json to data/<name>/, .* tokenizer",
    ):
        train(tiny_config("name=third", f"init_from={tmp_path / 'strange'}", *SHORT))
    assert not (tmp_path / "runs" / "third").exists()


def test_a_run_begins_again_only_with_the_same_weights(
    tiny_config: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """As if it had been killed before its first checkpoint."""
    first = tmp_path / "runs" / "first"
    train(tiny_config("name=first", *SHORT))
    settings = ["name=continued", f"init_from={first}", *SHORT]
    train(tiny_config(*settings))
    again, once_more = (
        tiny_config(
            *settings, f"runs_dir={as_if_killed(first.with_name('continued'), tmp_path / name, after=0).parent}"
        )
        for name in ("again", "once_more")
    )
    train(again)
    shutil.rmtree(first)
    train(tiny_config("name=first", "seed=7", *SHORT))
    with pytest.raises(ValueError, match="was started with weights that differ from those in"):
        train(once_more)
