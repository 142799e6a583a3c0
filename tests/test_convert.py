"""The command that converts: from a run to what other libraries load, and back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt_lightning import load_model
from gpt_lightning.convert import from_hf, from_native, grow_vocabulary, to_hf, to_native
from gpt_lightning.model.attention_backends import Backend
from gpt_lightning.model.attention_mask import AttentionMask
from gpt_lightning.model.part_registry import BACKENDS
from gpt_lightning.tokenizer import load_tokenizer
from running.commands.convert import convert
from running.commands.generate import generate
from running.commands.train import train
from running.config.command_line_check import check_command_line
from running.config.compose import compose_config
from tests.gpt_lightning.tiny_models import GPT2, build

SHORT = ["max_steps=2", "schedule.warmup_steps=1", "val_every=1", "callbacks.samples.every=1"]


def compose(*arguments: str) -> dict[str, Any]:
    check_command_line("convert", list(arguments))
    return compose_config("convert", arguments)


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("command", ["convert", "generate", "train"])
def test_ruined_weights_are_refused(
    command: str, tiny_config: Callable[..., dict[str, Any]], tiny_data: Path, tmp_path: Path
) -> None:
    config = tiny_config("name=run", f"init_from={tmp_path / 'ruined'}", *SHORT)
    model = build(**{key: value for key, value in config["model"].items() if key != "attention"})
    with torch.no_grad():
        model.blocks[1].attention.out.weight[3, 3] = float("nan")
    to_native(model, tmp_path / "ruined", load_tokenizer(tiny_data / "bpe_512"))
    do: dict[str, Callable[[], object]] = {
        "convert": lambda: convert(compose(f"input={tmp_path}/ruined", f"output={tmp_path}/out", "format=llama")),
        "generate": lambda: generate(compose_config("generate", [f"run={tmp_path}/ruined", "prompt=a"])),
        "train": lambda: train(config),
    }
    with pytest.raises(ValueError, match=r"ruined: blocks\.1\.\S+ contains NaN or infinity"):
        do[command]()
    assert not (tmp_path / "out").exists()


def test_a_run_is_exported_with_its_tokenizer(
    tiny_config: Callable[..., dict[str, Any]],
    tiny_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = tiny_config("name=run", *SHORT)
    train(config)
    capsys.readouterr()
    run = Path(config["run_dir"])
    model, tokenizer = load_model(run), load_tokenizer(tiny_data / "bpe_512")
    checkpoint = next((run / "checkpoints").glob("*.pt"))
    for source in (run, checkpoint):
        output = tmp_path / f"llama of {source.name}"
        convert(compose(f"input={source}", f"output='{output}'", "format=llama"))
        said = capsys.readouterr().out.splitlines()
        assert said[0].startswith(
            f"wrote {output} in format llama, from {source}: {model.n_parameters():,} parameters in float32, 2 layers"
        )
        assert said[1] == "tokenizer bpe_512, 512 tokens"
        assert same_weights(from_hf(output), model)
        assert load_tokenizer(output).fingerprint == tokenizer.fingerprint
    convert(compose(f"input='{output}'", f"output={tmp_path}/own", "format=gpt_lightning", "vocab_size=576"))
    grown = from_native(tmp_path / "own")
    assert grown.config.vocab_size == 576
    assert torch.equal(grown.embedding.weight[:512], model.embedding.weight)
    assert load_tokenizer(tmp_path / "own").fingerprint == tokenizer.fingerprint
    with pytest.raises(ValueError, match=r"model\.norm is rmsnorm: the format gpt2 supports only layernorm"):
        convert(compose(f"input={run}", f"output={tmp_path}/gpt2", "format=gpt2"))
    assert not (tmp_path / "gpt2").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("input=null", "input is None: it must be a path"),
        ("output=[a]", r"output is \['a'\]: it must be a path"),
        ("quantization=q8_0", "quantization=q8_0 has no effect on format=llama: remove it, or set format=gguf"),
        ("format=[llama]", r"format is \['llama'\]: it must be one of gpt2, llama, gguf, ollama, gpt_lightning"),
    ],
)
def test_what_is_no_path_or_format_is_refused(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert(compose("input=nowhere", override))


def test_only_a_standard_attention_backend_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that was trained with another computation of attention is loaded with it, or not at all."""
    monkeypatch.setitem(
        BACKENDS, "doubled", Backend(AttentionMask.mask, lambda *given: 2 * BACKENDS["manual"].attend(*given))
    )
    own = build(**GPT2 | {"attention": "doubled"})
    to_native(own, tmp_path / "own")
    to_native(build(**GPT2 | {"attention": "manual"}), tmp_path / "standard")
    assert from_native(tmp_path / "standard").config.attention == "auto"
    loaded, token_ids = from_native(tmp_path / "own"), torch.arange(8)[None]
    assert loaded.config.attention == grow_vocabulary(loaded, 600).config.attention == "doubled"
    torch.testing.assert_close(loaded(token_ids), own.eval()(token_ids))
    with pytest.raises(ValueError, match=r"model\.attention is doubled: the format gpt2 supports only auto or manual"):
        to_hf(own, tmp_path / "gpt2", format="gpt2")
    monkeypatch.delitem(BACKENDS, "doubled")
    with pytest.raises(ValueError, match=r"model\.attention is 'doubled': it must be one of "):
        from_native(tmp_path / "own")


def test_what_is_said_where_no_tokenizer_is_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to_hf(build(**GPT2), tmp_path / "gpt2", format="gpt2")
    convert(compose(f"input={tmp_path}/gpt2", f"output={tmp_path}/own", "format=gpt_lightning"))
    assert "no tokenizer was written: " in capsys.readouterr().out
    assert not (tmp_path / "own" / "tokenizer.json").exists()
    (tmp_path / "gpt2" / "tokenizer.json").write_text("{}")
    convert(compose(f"input={tmp_path}/gpt2", f"output={tmp_path}/another", "format=gpt_lightning"))
    assert "tokenizer.json is not a tokenizer.json" in capsys.readouterr().out


def test_a_tokenizer_can_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to_hf(build(**GPT2, vocab_size=50257), tmp_path / "gpt2", format="gpt2")
    arguments = [f"input={tmp_path}/gpt2", f"output={tmp_path}/chat", "format=gpt2", "tokenizer.name=gpt2_chatml"]
    with pytest.raises(ValueError, match=r"model\.vocab_size is 50257: it must be at least 50259"):
        convert(compose(*arguments))
    convert(compose(*arguments, "vocab_size=50304"))
    assert "tokenizer gpt2_chatml, 50,259 tokens" in capsys.readouterr().out
    assert load_tokenizer(tmp_path / "chat").vocab_size == 50259


def test_mistakes_cost_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="format is 'onnx': it must be one of gpt2, llama, gguf, ollama, gpt_lightning"
    ):
        convert(compose("format=onnx"))
    with pytest.raises(ValueError, match=r".*nowhere does not exist"):
        convert(compose(f"input={tmp_path}/nowhere"))
