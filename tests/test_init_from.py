"""Training that begins with weights from elsewhere."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt_lightning import load_model
from gpt_lightning.convert import start_from, to_hf
from tests.gpt_lightning.models import GPT2, VOCAB_SIZE, build
from train import train


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
