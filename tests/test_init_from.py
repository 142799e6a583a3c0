"""Training that begins with weights from elsewhere."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt_lightning import load_model
from gpt_lightning.convert import start_from, to_hf, to_native
from gpt_lightning.tokenizer import load_tokenizer, train_bpe
from tests.gpt_lightning.models import GPT2, VOCAB_SIZE, build
from tests.runs import as_if_killed
from train import train

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


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    model = build(**GPT2)
    to_hf(model, tmp_path / "hf", format="gpt2")
    config = model.config
    free = replace(config, dropout=0.5, attention="manual", residual_init="zero", vocab_size=VOCAB_SIZE + 3)
    assert start_from(tmp_path / "hf", free).config == free
    with pytest.raises(ValueError, match=r"another model: its weights go with model.n_heads=4 model.norm=layernorm"):
        start_from(tmp_path / "hf", replace(config, n_heads=2, norm="rmsnorm"))
    with pytest.raises(
        ValueError, match=r"vocabulary of 97, more than model.vocab_size=90: set model.vocab_size=97 or more"
    ):
        start_from(tmp_path / "hf", replace(config, vocab_size=90))
    to_hf(build(**GPT2, eot_id=3), tmp_path / "other", format="gpt2")
    with pytest.raises(ValueError, match="its end-of-text id is 3, and here it is 90"):
        start_from(tmp_path / "other", replace(config, eot_id=90))
    with pytest.raises(ValueError, match="there is no"):
        start_from(tmp_path / "nowhere", config)


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
    with pytest.raises(ValueError, match="was trained with a tokenizer strange whose ids are other tokens"):
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
    with pytest.raises(ValueError, match="was begun with other weights than"):
        train(once_more)
