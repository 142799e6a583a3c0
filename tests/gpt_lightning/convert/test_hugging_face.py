"""Models of transformers here, and ours there: the same logits, and no bit changed on the way round."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gpt_lightning.convert import from_hf, from_native, model_folder_io, to_hf, to_native
from tests.gpt_lightning.convert.oracles import (
    CONVERTED,
    SMALL_GPT2,
    SMALL_LLAMA,
    format_of,
    same,
    same_bits,
    shaken,
)
from tests.gpt_lightning.tiny_models import GPT2, LLAMA, MODERN, build, sequences

# Hugging Face: reading


@pytest.mark.parametrize("depth", [12, 24, 36, 48])
def test_gpt2_of_transformers_says_the_same_here(transformers: Any, tmp_path: Path, depth: int) -> None:
    theirs = shaken(transformers.GPT2LMHeadModel(transformers.GPT2Config(**SMALL_GPT2 | {"n_layer": depth})))
    theirs.save_pretrained(tmp_path)
    state = torch.random.get_rng_state()
    ours = from_hf(tmp_path)
    assert torch.equal(state, torch.random.get_rng_state())
    assert same(ours, theirs)
    assert not ours.training
    assert (ours.config.n_layers, ours.config.d_ff, ours.config.attention, ours.config.eot_id) == (depth, 48, "auto", 5)
    assert ours.n_parameters() == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize("changes", [{"activation_function": "gelu"}, {"n_inner": None, "tie_word_embeddings": False}])
def test_gpt2_options_that_are_ours(transformers: Any, tmp_path: Path, changes: dict[str, Any]) -> None:
    theirs = shaken(transformers.GPT2LMHeadModel(transformers.GPT2Config(**SMALL_GPT2 | changes)))
    theirs.save_pretrained(tmp_path)
    assert same(from_hf(tmp_path), theirs)


def test_gpt2_124m_says_the_same_here(transformers: Any, tmp_path: Path) -> None:
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config()).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if parameter.dim() == 1:  # initialised as zeros and ones, which hide mistakes
                parameter.add_(torch.linspace(-0.1, 0.1, len(parameter)), alpha=1 + 0.1 * (len(name) % 7))
    theirs.save_pretrained(tmp_path)
    ours = from_hf(tmp_path)
    assert ours.n_parameters() == 124_439_808
    assert ours.config.eot_id == 50256
    assert same(ours, theirs)


@pytest.mark.parametrize("n_kv_heads", [None, 2, 1])
@pytest.mark.parametrize("tied", [False, True])
def test_llama_of_transformers_says_the_same_here(
    transformers: Any, tmp_path: Path, n_kv_heads: int | None, tied: bool
) -> None:
    options = SMALL_LLAMA | {"num_key_value_heads": n_kv_heads, "tie_word_embeddings": tied}
    theirs = shaken(transformers.LlamaForCausalLM(transformers.LlamaConfig(**options)))
    theirs.save_pretrained(tmp_path)
    ours = from_hf(tmp_path)
    assert same(ours, theirs)
    assert ours.config.kv_heads == (n_kv_heads or 4)
    assert ours.config.tie_embeddings == tied


def test_shards_are_one_model(transformers: Any, tmp_path: Path) -> None:
    theirs = shaken(transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL_LLAMA)))
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 2
    assert same(from_hf(tmp_path), theirs)
    shards[1].unlink()
    with pytest.raises(ValueError, match=rf"lacks {shards[1].name}, which model\.safetensors\.index\.json lists"):
        from_hf(tmp_path)


def test_older_gpt2_files_hold_more_and_shorter_keys(transformers: Any, tmp_path: Path) -> None:
    """The weights of 2019 on the hub: no prefix, masks as buffers, sometimes the tied head."""
    theirs = shaken(transformers.GPT2LMHeadModel(transformers.GPT2Config(**SMALL_GPT2)))
    theirs.save_pretrained(tmp_path)
    weights = {
        key.removeprefix("transformer."): value for key, value in load_file(tmp_path / model_folder_io.WEIGHTS).items()
    }
    for number in range(2):
        weights[f"h.{number}.attn.bias"] = torch.ones(1, 1, 16, 16).tril()
        weights[f"h.{number}.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(weights, tmp_path / model_folder_io.WEIGHTS)
    assert same(from_hf(tmp_path), theirs)
    save_file(weights | {"lm_head.weight": weights["wte.weight"].clone()}, tmp_path / model_folder_io.WEIGHTS)
    assert same(from_hf(tmp_path), theirs)
    save_file(weights | {"lm_head.weight": weights["wte.weight"] + 1}, tmp_path / model_folder_io.WEIGHTS)
    with pytest.raises(ValueError, match=r"lm_head\.weight differs from wte\.weight: they must be equal"):
        from_hf(tmp_path)


def test_older_llama_files_say_rope_theta(tmp_path: Path) -> None:
    model = shaken(build(**LLAMA))
    to_hf(model, tmp_path / "llama", format="llama")
    path = tmp_path / "llama" / "config.json"
    options = json.loads(path.read_text())
    del options["rope_parameters"]
    path.write_text(json.dumps(options | {"rope_scaling": None}))
    weights = load_file(tmp_path / "llama" / model_folder_io.WEIGHTS)
    weights |= {f"model.layers.{n}.self_attn.rotary_emb.inv_freq": torch.ones(4) for n in range(2)}
    save_file(weights, tmp_path / "llama" / model_folder_io.WEIGHTS)
    assert same(from_hf(tmp_path / "llama"), model, tolerance=0)


@pytest.mark.parametrize(
    ("format", "changes", "sentence"),
    [
        ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}, "rope_theta is 500000.0"),
        ("llama", {"rope_parameters": None, "rope_theta": 500000.0}, "rope_theta is 500000.0"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling is"),
        ("llama", {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}, "rope_parameters is"),
        ("llama", {"rope_parameters": {"full_attention": {"rope_theta": 1e6}}}, "rope_parameters is"),
        (
            "llama",
            {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}},
            "partial_rotary_factor is 0.5",
        ),
        ("llama", {"rms_norm_eps": 1e-6}, "rms_norm_eps is 1e-06: it must be 1e-05"),
        ("llama", {"attention_bias": True}, "attention_bias is True"),
        ("llama", {"attention_dropout": 0.1}, "attention_dropout is 0.1"),
        ("llama", {"mlp_bias": True}, "mlp_bias is True"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ("llama", {"head_dim": 16}, "head_dim is 16"),
        ("llama", {"sliding_window": 8}, "sliding_window is 8"),
        ("llama", {"quantization_config": {"bits": 4}}, "quantization_config is"),
        ("llama", {"num_attention_heads": 5}, "model.d_model is 32: it must be a multiple of model.n_heads=5"),
        ("llama", {"hidden_size": "wide"}, "model.d_model is 'wide'"),
        ("gpt2", {"activation_function": "relu"}, "activation_function is 'relu'"),
        ("gpt2", {"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon is 1e-06"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
        ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights is False"),
        ("gpt2", {"add_cross_attention": True}, "add_cross_attention is True"),
        ("gpt2", {"attn_pdrop": 0.3}, "resid_pdrop, embd_pdrop, attn_pdrop differ"),
        ("gpt2", {"model_type": "mamba"}, "model_type is 'mamba': it must be one of gpt2, llama"),
    ],
)
def test_a_model_that_is_no_gpt_of_ours_is_refused(
    tmp_path: Path, format: str, changes: dict[str, Any], sentence: str
) -> None:
    to_hf(build(**GPT2 if format == "gpt2" else LLAMA), tmp_path / "model", format=format)
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match=re.escape(f"{path}: {sentence}")):
        from_hf(tmp_path / "model")


def test_what_config_json_leaves_unsaid_is_transformers_own(tmp_path: Path) -> None:
    """Llama's rms_norm_eps is 1e-6 there, so a file that does not say is none of ours."""
    to_hf(build(**LLAMA), tmp_path / "model", format="llama")
    path = tmp_path / "model" / "config.json"
    options = json.loads(path.read_text())
    del options["rms_norm_eps"]
    path.write_text(json.dumps(options))
    with pytest.raises(ValueError, match="rms_norm_eps is 1e-06"):
        from_hf(tmp_path / "model")


# Hugging Face: writing


@pytest.mark.parametrize("choices", CONVERTED.values(), ids=CONVERTED)
def test_our_model_says_the_same_in_transformers(transformers: Any, tmp_path: Path, choices: dict[str, Any]) -> None:
    model = shaken(build(**choices, dropout=0.25, eot_id=7))
    to_hf(model, tmp_path / "out", format=format_of(choices))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", local_files_only=True)
    assert type(theirs).__name__ == {"gpt2": "GPT2LMHeadModel", "llama": "LlamaForCausalLM"}[format_of(choices)]
    assert same(model, theirs)
    assert sum(p.numel() for p in theirs.parameters()) == model.n_parameters()
    assert (theirs.lm_head.weight is theirs.get_input_embeddings().weight) == model.config.tie_embeddings
    assert ("lm_head.weight" in load_file(tmp_path / "out" / model_folder_io.WEIGHTS)) != model.config.tie_embeddings
    assert theirs.config.eos_token_id == theirs.config.bos_token_id == 7
    if format_of(choices) == "gpt2":
        assert theirs.config.resid_pdrop == theirs.config.embd_pdrop == theirs.config.attn_pdrop == 0.25


@pytest.mark.parametrize(
    ("format", "choices", "option"),
    [
        ("gpt2", {"norm": "rmsnorm"}, "norm is rmsnorm"),
        ("gpt2", {"feed_forward": "relu2"}, "feed_forward is relu2"),
        ("gpt2", {"feed_forward": "swiglu"}, "feed_forward is swiglu"),
        ("gpt2", {"position": "rope"}, "position is rope"),
        ("gpt2", {"bias": False}, "bias is False"),
        ("gpt2", {"qk_norm": True}, "qk_norm is True"),
        ("gpt2", {"n_kv_heads": 2}, "n_kv_heads is 2"),
        ("gpt2", {"logit_soft_cap": 15.0}, "logit_soft_cap is 15.0"),
        ("llama", {"norm": "layernorm"}, "norm is layernorm"),
        ("llama", {"feed_forward": "gelu_tanh"}, "feed_forward is gelu_tanh"),
        ("llama", {"feed_forward": "relu2"}, "feed_forward is relu2"),
        ("llama", {"position": "learned"}, "position is learned"),
        ("llama", {"bias": True}, "bias is True"),
        ("llama", {"qk_norm": True}, "qk_norm is True"),
        ("llama", {"logit_soft_cap": 15.0}, "logit_soft_cap is 15.0"),
    ],
)
def test_what_a_format_cannot_express_is_refused(
    tmp_path: Path, format: str, choices: dict[str, Any], option: str
) -> None:
    model = build(**{"gpt2": GPT2, "llama": LLAMA}[format] | choices)
    with pytest.raises(ValueError, match=rf"model\.{option}: the format {format} supports only"):
        to_hf(model, tmp_path / "out", format=format)
    assert not list(tmp_path.iterdir())
    to_native(model, tmp_path / "out")
    assert from_native(tmp_path / "out").config.d_model == 32


def test_a_dtype_that_would_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    model = build(**GPT2).double()
    for write in (to_native, lambda model, folder: to_hf(model, folder, format="gpt2")):
        with pytest.raises(ValueError, match=r"embedding\.weight is float64: the dtype must be float32 or bfloat16"):
            write(model, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_options_that_decide_only_the_training_are_no_obstacle(tmp_path: Path) -> None:
    only_training = {"z_loss": 1e-4, "residual_init": "zero", "attend_across_documents": False, "eot_id": 3}
    model = shaken(build(**LLAMA, **only_training))
    to_hf(model, tmp_path / "out", format="llama")
    token_ids = sequences()[0].clone()
    token_ids[token_ids == 3] = 4
    with torch.no_grad():
        torch.testing.assert_close(from_hf(tmp_path / "out")(token_ids), model(token_ids), atol=1e-5, rtol=0)


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="format is 'onnx': it must be one of gpt2, llama"):
        to_hf(build(**GPT2), tmp_path / "out", format="onnx")


# No bit changes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("choices", CONVERTED.values(), ids=CONVERTED)
def test_round_trips_change_no_bit(tmp_path: Path, choices: dict[str, Any], dtype: torch.dtype) -> None:
    model = shaken(build(**choices)).to(dtype)
    to_hf(model, tmp_path / "hf", format=format_of(choices))
    back = from_hf(tmp_path / "hf")
    assert same_bits(back.state_dict(), model.state_dict())
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["torch_dtype"] == str(dtype).split(".")[1]
    to_hf(back, tmp_path / "again", format=format_of(choices))
    assert (tmp_path / "hf" / model_folder_io.WEIGHTS).read_bytes() == (
        tmp_path / "again" / model_folder_io.WEIGHTS
    ).read_bytes()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_files_of_transformers_come_back_bit_for_bit(transformers: Any, tmp_path: Path, dtype: torch.dtype) -> None:
    for format, theirs in (
        ("gpt2", transformers.GPT2LMHeadModel(transformers.GPT2Config(**SMALL_GPT2))),
        ("llama", transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL_LLAMA))),
    ):
        shaken(theirs).to(dtype).save_pretrained(tmp_path / format)
        to_hf(from_hf(tmp_path / format), tmp_path / f"{format} again", format=format)
        assert same_bits(
            load_file(tmp_path / format / model_folder_io.WEIGHTS),
            load_file(tmp_path / f"{format} again" / model_folder_io.WEIGHTS),
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("choices", [GPT2, LLAMA, MODERN], ids=["gpt2", "llama", "modern"])
def test_our_own_folder_holds_every_gpt(tmp_path: Path, choices: dict[str, Any], dtype: torch.dtype) -> None:
    model = shaken(build(**choices, attention="manual", attend_across_documents=False, eot_id=3, dropout=0.1)).to(dtype)
    to_native(model, tmp_path / "out")
    back = from_native(tmp_path / "out")
    assert same_bits(back.state_dict(), model.state_dict())
    assert (
        back.config == build(**choices, attention="auto", attend_across_documents=False, eot_id=3, dropout=0.1).config
    )
    assert (back.head.weight is back.embedding.weight) == model.config.tie_embeddings
    assert ("head.weight" in load_file(tmp_path / "out" / model_folder_io.WEIGHTS)) != model.config.tie_embeddings
    if dtype == torch.float32:
        assert same(back, model, tolerance=1e-5)
