"""A config.json whose sizes its weights do not bear out is refused before a model is built."""

import json
from pathlib import Path
from typing import Any

import pytest

from gpt_lightning import load_model
from gpt_lightning.convert import to_hf, to_native
from gpt_lightning.convert.init_from import model_from_initial_weights
from gpt_lightning.model import GPT, GPTConfig

SIZES: dict[str, Any] = {"vocab_size": 64, "max_seq_len": 16, "d_model": 16, "n_layers": 2, "n_heads": 2, "d_ff": 32}
NAMES = {
    "gpt2": {"n_layers": "n_layer", "vocab_size": "vocab_size", "d_ff": "n_inner", "max_seq_len": "n_positions"},
    "llama": {
        "n_layers": "num_hidden_layers",
        "vocab_size": "vocab_size",
        "d_ff": "intermediate_size",
        "max_seq_len": "max_position_embeddings",
    },
    "native": {name: name for name in ("n_layers", "vocab_size", "d_ff", "max_seq_len")},
}


def modern(**more: Any) -> GPTConfig:
    return GPTConfig(**SIZES, norm="rmsnorm", feed_forward="swiglu", position="rope", bias=False, **more)


@pytest.mark.parametrize("value", [10**5, 10**9, 10**18])
@pytest.mark.parametrize(("format", "name"), [(format, name) for format, names in NAMES.items() for name in names])
def test_sizes_that_the_weights_do_not_bear_out_are_refused(
    tmp_path: Path, format: str, name: str, value: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "max_seq_len":
        value *= 100
    config = GPTConfig(**SIZES) if format == "gpt2" else modern()
    folder = tmp_path / "model"
    if format == "native":
        to_native(GPT(config), folder)
    else:
        to_hf(GPT(config), folder, format=format)
    options = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(options | {NAMES[format][name]: value}))
    monkeypatch.setattr(GPT, "__init__", lambda *_: pytest.fail("a model is built"))
    for read in (load_model, lambda path: model_from_initial_weights(path, config)):
        with pytest.raises(
            ValueError, match=f"{name} is {value:,}: it must be at most .*The config is damaged or belongs to another"
        ):
            read(folder)
