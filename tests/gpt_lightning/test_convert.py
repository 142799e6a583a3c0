"""Weight conversion: other libraries' logits and ids as oracles, no bit changed on the way round, every fault named."""

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gpt_lightning.convert import (
    folders,
    from_gpt2_5,
    from_hf,
    from_native,
    from_rangeflow,
    grow_vocabulary,
    load_model,
    to_hf,
    to_native,
)
from gpt_lightning.model import GPT
from gpt_lightning.tokenizer import Message, Tokenizer, load_tokenizer
from tests.gpt_lightning.foreign_models import GPT25, RangeFlow
from tests.gpt_lightning.models import GPT2, LLAMA, MODERN, VOCAB_SIZE, build, sequences

SMALL_GPT2 = {"vocab_size": VOCAB_SIZE, "n_positions": 16, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 48}
SMALL_GPT2 |= {"bos_token_id": 5, "eos_token_id": 5}
SMALL_LLAMA = {
    "vocab_size": VOCAB_SIZE,
    "max_position_embeddings": 16,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "rms_norm_eps": 1e-5,
}
FOREIGN = {"vocab_size": VOCAB_SIZE, "context": 16, "d_model": 128, "n_layers": 2, "n_heads": 2, "d_ff": 48}
CONVERTED = {
    "gpt2": GPT2,
    "gpt2, exact gelu, untied": GPT2 | {"feed_forward": "gelu", "tie_embeddings": False},
    "llama": LLAMA,
    "llama, grouped queries, tied": LLAMA | {"n_kv_heads": 2, "tie_embeddings": True},
}


@pytest.fixture(scope="module")
def transformers() -> Any:
    """Imported late: it takes seconds, and most of the suite does without."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    return transformers


def shaken(model: nn.Module) -> Any:
    """The model with every weight random, biases and norms too, so that none can stand in for another."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
    return model.eval()


def foreign(build_foreign: type[nn.Module], **changes: Any) -> Any:
    model = build_foreign(**FOREIGN | changes)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    return shaken(model)


def same(model: Callable[[Tensor], Tensor], oracle: Callable[[Tensor], Any], tolerance: float = 1e-4) -> bool:
    with torch.no_grad():
        token_ids = sequences()[0]
        expected = oracle(token_ids)
        difference = model(token_ids) - getattr(expected, "logits", expected)
    return bool(difference.abs().max() <= tolerance)


def same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[key].dtype == other[key].dtype and torch.equal(one[key], other[key]) for key in one
    )


def format_of(choices: dict[str, Any]) -> str:
    return "gpt2" if choices["position"] == "learned" else "llama"


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
    with pytest.raises(ValueError, match=rf"lacks {shards[1].name}, which model\.safetensors\.index\.json names"):
        from_hf(tmp_path)


def test_older_gpt2_files_hold_more_and_shorter_keys(transformers: Any, tmp_path: Path) -> None:
    """The weights of 2019 on the hub: no prefix, masks as buffers, sometimes the tied head."""
    theirs = shaken(transformers.GPT2LMHeadModel(transformers.GPT2Config(**SMALL_GPT2)))
    theirs.save_pretrained(tmp_path)
    weights = {key.removeprefix("transformer."): value for key, value in load_file(tmp_path / folders.WEIGHTS).items()}
    for number in range(2):
        weights[f"h.{number}.attn.bias"] = torch.ones(1, 1, 16, 16).tril()
        weights[f"h.{number}.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(weights, tmp_path / folders.WEIGHTS)
    assert same(from_hf(tmp_path), theirs)
    save_file(weights | {"lm_head.weight": weights["wte.weight"].clone()}, tmp_path / folders.WEIGHTS)
    assert same(from_hf(tmp_path), theirs)
    save_file(weights | {"lm_head.weight": weights["wte.weight"] + 1}, tmp_path / folders.WEIGHTS)
    with pytest.raises(ValueError, match=r"lm_head\.weight is not wte\.weight, although the model ties"):
        from_hf(tmp_path)


def test_older_llama_files_say_rope_theta(tmp_path: Path) -> None:
    model = shaken(build(**LLAMA))
    to_hf(model, tmp_path / "llama", format="llama")
    path = tmp_path / "llama" / "config.json"
    options = json.loads(path.read_text())
    del options["rope_parameters"]
    path.write_text(json.dumps(options | {"rope_scaling": None}))
    weights = load_file(tmp_path / "llama" / folders.WEIGHTS)
    weights |= {f"model.layers.{n}.self_attn.rotary_emb.inv_freq": torch.ones(4) for n in range(2)}
    save_file(weights, tmp_path / "llama" / folders.WEIGHTS)
    assert same(from_hf(tmp_path / "llama"), model, tolerance=0)


@pytest.mark.parametrize(
    ("format", "changes", "sentence"),
    [
        ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}, "rope_theta is 500000.0"),
        ("llama", {"rope_parameters": None, "rope_theta": 500000.0}, "rope_theta is 500000.0"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling is"),
        ("llama", {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}, "rope_parameters is"),
        (
            "llama",
            {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}},
            "partial_rotary_factor is 0.5",
        ),
        ("llama", {"rms_norm_eps": 1e-6}, "rms_norm_eps is 1e-06, and every GPT of this project has 1e-05"),
        ("llama", {"attention_bias": True}, "attention_bias is True"),
        ("llama", {"attention_dropout": 0.1}, "attention_dropout is 0.1"),
        ("llama", {"mlp_bias": True}, "mlp_bias is True"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ("llama", {"head_dim": 16}, "head_dim is 16"),
        ("llama", {"sliding_window": 8}, "sliding_window is 8"),
        ("llama", {"quantization_config": {"bits": 4}}, "quantization_config is"),
        ("llama", {"num_attention_heads": 5}, "model.d_model is 32, which model.n_heads=5 does not divide"),
        ("llama", {"hidden_size": "wide"}, "model.d_model is 'wide'"),
        ("gpt2", {"activation_function": "relu"}, "activation_function is 'relu'"),
        ("gpt2", {"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon is 1e-06"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
        ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights is False"),
        ("gpt2", {"add_cross_attention": True}, "add_cross_attention is True"),
        ("gpt2", {"attn_pdrop": 0.3}, "resid_pdrop, embd_pdrop, attn_pdrop differ"),
        ("gpt2", {"model_type": "mamba"}, "model_type is 'mamba', and must be one of gpt2, llama"),
    ],
)
def test_a_model_that_is_no_gpt_of_ours_is_refused(
    tmp_path: Path, format: str, changes: dict[str, Any], sentence: str
) -> None:
    to_hf(build(**GPT2 if format == "gpt2" else LLAMA), tmp_path / "model", format=format)
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError) as refusal:  # noqa: PT011  # the sentence is compared as it stands
        from_hf(tmp_path / "model")
    assert f"{path}: {sentence}" in str(refusal.value)


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
    assert ("lm_head.weight" in load_file(tmp_path / "out" / folders.WEIGHTS)) != model.config.tie_embeddings
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
    with pytest.raises(ValueError, match=rf"model\.{option}, which the format {format} cannot express"):
        to_hf(model, tmp_path / "out", format=format)
    assert not list(tmp_path.iterdir())
    to_native(model, tmp_path / "out")
    assert from_native(tmp_path / "out").config.d_model == 32


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
    assert (tmp_path / "hf" / folders.WEIGHTS).read_bytes() == (tmp_path / "again" / folders.WEIGHTS).read_bytes()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_files_of_transformers_come_back_bit_for_bit(transformers: Any, tmp_path: Path, dtype: torch.dtype) -> None:
    for format, theirs in (
        ("gpt2", transformers.GPT2LMHeadModel(transformers.GPT2Config(**SMALL_GPT2))),
        ("llama", transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL_LLAMA))),
    ):
        shaken(theirs).to(dtype).save_pretrained(tmp_path / format)
        to_hf(from_hf(tmp_path / format), tmp_path / f"{format} again", format=format)
        assert same_bits(
            load_file(tmp_path / format / folders.WEIGHTS), load_file(tmp_path / f"{format} again" / folders.WEIGHTS)
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
    assert ("head.weight" in load_file(tmp_path / "out" / folders.WEIGHTS)) != model.config.tie_embeddings
    if dtype == torch.float32:
        assert same(back, model, tolerance=1e-5)


# RangeFlow-GPT and GPT-2.5


@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
@pytest.mark.parametrize("config", [None, {"n_heads": 4}, {"num_heads": 4}])
def test_rangeflow_says_the_same_here(tmp_path: Path, prefix: str, config: dict[str, int] | None) -> None:
    theirs = foreign(RangeFlow, n_heads=4 if config else 2)
    state = {prefix + key: value for key, value in theirs.state_dict().items()}
    content = {"step": 700, "loss": 3.2, "optimizer_state_dict": {"state": {}}, "scaler_state_dict": {}}
    torch.save(content | {"config": config, "model_state_dict": state}, tmp_path / "checkpoint_step_700.pt")
    ours = from_rangeflow(tmp_path / "checkpoint_step_700.pt")
    assert same(ours, theirs)
    assert ours.config.residual_init == "plain"
    assert ours.config.dropout == 0.1
    assert ours.head.weight is ours.embedding.weight
    assert not ours.training


@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
def test_gpt2_5_says_the_same_here(tmp_path: Path, prefix: str) -> None:
    theirs = foreign(GPT25)
    state = {prefix + key: value for key, value in theirs.state_dict().items()}
    torch.save({"model_state": state, "optimizer_state": {}, "iteration_state": {"step": 3}}, tmp_path / "gpt2_5.pt")
    ours = from_gpt2_5(tmp_path / "gpt2_5.pt")
    assert same(ours, theirs)
    assert (ours.config.n_heads, ours.config.max_seq_len, ours.config.tie_embeddings) == (2, 16, False)
    assert ours.state_dict().keys() == build(**LLAMA).state_dict().keys()


def test_gpt2_5_rows_change_places_and_no_bit(tmp_path: Path) -> None:
    theirs = foreign(GPT25).bfloat16().state_dict()
    torch.save({"model_state": theirs}, tmp_path / "gpt2_5.pt")
    ours = from_gpt2_5(tmp_path / "gpt2_5.pt").state_dict()["blocks.1.attention.qkv.weight"]
    even_then_odd = [*range(0, 64, 2), *range(1, 64, 2)]
    rows = torch.tensor([head * 64 + row for head in range(2) for row in even_then_odd])
    expected = [theirs["tblocks.1.mhsa.Wq.weight"][rows], theirs["tblocks.1.mhsa.Wk.weight"][rows]]
    assert torch.equal(ours, torch.cat([*expected, theirs["tblocks.1.mhsa.Wv.weight"]]))
    assert ours.dtype == torch.bfloat16


def test_positions_that_turn_otherwise_are_refused(tmp_path: Path) -> None:
    torch.save({"model_state": foreign(GPT25, theta=500_000.0).state_dict()}, tmp_path / "gpt2_5.pt")
    with pytest.raises(
        ValueError, match=r"tblocks\.0\.mhsa\.rope\.cos is not the \(16, 32\) table of RoPE with theta 10000"
    ):
        from_gpt2_5(tmp_path / "gpt2_5.pt")


def test_heads_that_nothing_tells_are_refused(tmp_path: Path) -> None:
    torch.save({"model_state_dict": foreign(RangeFlow, d_model=96).state_dict()}, tmp_path / "rangeflow.pt")
    with pytest.raises(ValueError, match="d_model is 96, no multiple of 64, and config says neither"):
        from_rangeflow(tmp_path / "rangeflow.pt")


# Faults are named


def save_hf(weights: dict[str, Tensor], folder: Path) -> Path:
    to_hf(build(**LLAMA), folder / "model", format="llama")
    save_file(weights, folder / "model" / folders.WEIGHTS)
    return folder / "model"


def save_native(weights: dict[str, Tensor], folder: Path) -> Path:
    to_native(build(**LLAMA), folder / "model")
    save_file(weights, folder / "model" / folders.WEIGHTS)
    return folder / "model"


def save_pt(key: str) -> Callable[[dict[str, Tensor], Path], Path]:
    def save(weights: dict[str, Tensor], folder: Path) -> Path:
        torch.save({key: weights}, folder / "model.pt")
        return folder / "model.pt"

    return save


def hf_weights(tmp_path: Path) -> dict[str, Tensor]:
    to_hf(build(**LLAMA), tmp_path / "whole", format="llama")
    return load_file(tmp_path / "whole" / folders.WEIGHTS)


KINDS: dict[str, tuple[Callable[[Path], dict[str, Tensor]], Callable[[dict[str, Tensor], Path], Path], list[str]]] = {
    "hf": (hf_weights, save_hf, ["model.layers.1.self_attn.k_proj.weight", "model.norm.weight"]),
    "native": (
        lambda _: build(**LLAMA).state_dict(),
        save_native,
        ["embedding.weight", "blocks.1.attention.qkv.weight", "head.weight"],
    ),
    "rangeflow": (
        lambda _: foreign(RangeFlow).state_dict(),
        save_pt("model_state_dict"),
        ["blocks.1.attn.qkv_proj.weight", "blocks.0.ln2.bias", "blocks.0.ff.linear1.weight", "token_embed.weight"],
    ),
    "gpt2_5": (
        lambda _: foreign(GPT25).state_dict(),
        save_pt("model_state"),
        ["tblocks.1.mhsa.Wk.weight", "tblocks.0.ffn.w2", "tblocks.0.mhsa.rope.cos", "tblocks.1.mhsa.rope.sin"],
    ),
}
CASES = [(kind, key) for kind, (_, _, keys) in KINDS.items() for key in keys]


@pytest.mark.parametrize(("kind", "key"), CASES)
def test_a_fault_is_named_by_its_key(tmp_path: Path, kind: str, key: str) -> None:
    make, save, _ = KINDS[kind]
    whole = make(tmp_path)
    faults = {
        "missing": {k: v for k, v in whole.items() if k != key},
        "shape": whole | {key: whole[key][:-1].clone()},
        "flat": whole | {key: whole[key].flatten()[:-2].clone()},
        "integers": whole | {key: whole[key].long()},
        "doubles": whole | {key: whole[key].double()},
        "mixed": whole | {key: whole[key].bfloat16()},
    }
    if "rope" in key:  # a table is dropped: only what it says matters
        faults = {name: fault for name, fault in faults.items() if name not in ("doubles", "mixed")}
    for name, fault in faults.items():
        (tmp_path / name).mkdir()
        path = save(fault, tmp_path / name)
        with pytest.raises(ValueError) as refusal:  # noqa: PT011  # which key it names is what counts
            load_model(path)
        # a matrix that says how large the model is: a smaller one makes another weight too large
        decides_sizes = name == "shape" and key.endswith(
            ("0.ff.linear1.weight", "0.mhsa.rope.cos", "token_embed.weight")
        )
        assert key in str(refusal.value) or decides_sizes, (name, str(refusal.value))
        assert str(path) in str(refusal.value)
        assert str(refusal.value).count("\n") == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_stranger_is_named(tmp_path: Path, kind: str) -> None:
    make, save, _ = KINDS[kind]
    path = save(make(tmp_path) | {"stranger.weight": torch.ones(2, 2)}, tmp_path)
    with pytest.raises(ValueError, match=r"has stranger\.weight, which the model has no place for"):
        load_model(path)


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return (Path.touch, (self.marker,))


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    def zipped(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("readme.txt", "nothing")

    makers: dict[str, Callable[[Path], object]] = {
        "bytes": lambda path: path.write_bytes(bytes(range(256)) * 50),
        "empty": lambda path: path.write_bytes(b""),
        "text": lambda path: path.write_text("Once upon a time,"),
        "zip": zipped,
        "pickle": lambda path: path.write_bytes(pickle.dumps({"model_state_dict": {}})),
        "malicious": lambda path: torch.save({"model_state_dict": Malicious(tmp_path / "marker")}, path),
        "list": lambda path: torch.save([1, 2], path),
        "strange dict": lambda path: torch.save({"weights": {}}, path),
        "half": lambda path: path.write_bytes(b"PK\x03\x04"),
        "no weights": lambda path: torch.save({"model_state_dict": 3}, path),
        "no tensors": lambda path: torch.save({"model_state": {"emb.weight": 3}}, path),
        "no matrix": lambda path: torch.save({"model_state": {"emb.weight": torch.ones(3)}}, path),
    }
    for name, make in makers.items():
        path = tmp_path / f"{name}.pt"
        make(path)
        for read in (load_model, from_rangeflow, from_gpt2_5):
            with pytest.raises(ValueError) as refusal:  # noqa: PT011
                read(path)
            assert str(path) in str(refusal.value)
            assert "\n" not in str(refusal.value)
    assert not (tmp_path / "marker").exists()


def test_what_is_no_folder_of_a_model_is_refused(tmp_path: Path) -> None:
    for read in (load_model, from_hf, from_native, from_rangeflow):
        with pytest.raises(ValueError, match="there is no "):
            read(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"is no model: it has neither checkpoints"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not JSON"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="holds list, and must hold an object"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ValueError, match=r"has no model\.safetensors"):
        from_hf(tmp_path)
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(
        ValueError, match=r"pytorch_model\.bin, which can run code when read: convert it to safetensors"
    ):
        from_hf(tmp_path)
    (tmp_path / folders.WEIGHTS).write_bytes(b"rubbish" * 20)
    with pytest.raises(ValueError, match=r"model\.safetensors is no undamaged safetensors file"):
        from_hf(tmp_path)
    with pytest.raises(ValueError, match=r"has no model_type gpt_lightning: it is another project's"):
        from_native(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gpt_lightning", "width": 3}')
    with pytest.raises(ValueError, match=r"config\.json: .*unexpected keyword argument 'width'"):
        from_native(tmp_path)


# Folders are written whole or not at all


def test_a_folder_that_is_taken_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("out", "file"):
        for write in (to_native, lambda model, folder: to_hf(model, folder, format="gpt2")):
            with pytest.raises(ValueError, match="exists and is not an empty folder"):
                write(build(**GPT2), tmp_path / name)
    assert {path.name for path in tmp_path.rglob("*")} == {"out", "mine.txt", "file"}


def test_an_empty_folder_and_an_interrupted_export_are_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / ".out.tmp").mkdir()
    (tmp_path / ".out.tmp" / "old.json").touch()
    to_native(build(**GPT2), tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"config.json", folders.WEIGHTS}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    modes = {path.stat().st_mode for path in (tmp_path / "out").iterdir()}
    assert len(modes) == 1  # whoever may read one file may read the other


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", fail)  # the last thing before the folder takes its name
    with pytest.raises(OSError, match="no space left"):
        to_hf(build(**GPT2), tmp_path / "out", format="gpt2")
    assert not list(tmp_path.iterdir())


# One door


def test_one_door_opens_every_folder_and_file(tmp_path: Path) -> None:
    model = shaken(build(**LLAMA))
    to_native(model, tmp_path / "native")
    to_hf(model, tmp_path / "hf", format="llama")
    for name in ("native", "hf"):
        assert same_bits(load_model(tmp_path / name).state_dict(), model.state_dict())
        assert load_model(tmp_path / name).config.attention == "auto"
    for key, theirs in (("model_state_dict", foreign(RangeFlow)), ("model_state", foreign(GPT25))):
        torch.save({key: theirs.state_dict()}, tmp_path / "model.pt")
        assert same(load_model(tmp_path / "model.pt"), theirs)


# Growing


@pytest.mark.parametrize("choices", [GPT2, LLAMA], ids=["tied", "untied"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_vocabulary_grows_by_the_mean(choices: dict[str, Any], dtype: torch.dtype) -> None:
    model: GPT = shaken(build(**choices)).to(dtype)
    grown = grow_vocabulary(model, 128)
    assert grown.config.vocab_size == 128
    for old, new in ((model.embedding, grown.embedding), (model.head, grown.head)):
        assert torch.equal(new.weight[:VOCAB_SIZE], old.weight)
        assert new.weight.dtype == dtype
        mean = old.weight.float().mean(0).to(dtype)
        assert torch.equal(new.weight[VOCAB_SIZE:], mean.expand(128 - VOCAB_SIZE, -1))
    assert (grown.head.weight is grown.embedding.weight) == model.config.tie_embeddings
    if dtype == torch.float32:
        assert same(lambda ids: grown(ids)[..., :VOCAB_SIZE], model, tolerance=1e-5)
    assert model.config.vocab_size == VOCAB_SIZE
    assert same_bits(grow_vocabulary(model, VOCAB_SIZE).state_dict(), model.state_dict())


def test_a_vocabulary_never_shrinks() -> None:
    with pytest.raises(ValueError, match="vocab_size is 96, less than the model's 97: it can only grow"):
        grow_vocabulary(build(**GPT2), 96)
    with pytest.raises(ValueError, match="vocab_size is '128': it must be a whole number"):
        grow_vocabulary(build(**GPT2), "128")  # type: ignore[arg-type]


# Tokenizers


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """What every machine has: Python files, and what breaks tokenizers."""
    strange = [
        "",
        " ",
        "\n\n\n  x",
        "naïve  café\t☃ 한국어 🙂🙂",
        "don't we'll I'D 3,141.59",
        "  trailing  ",
        "a" * 500,
    ]
    return strange + [path.read_text(encoding="utf-8") for path in sorted(Path(json.__file__).parent.glob("*.py"))]


def export(model_choices: dict[str, Any], tokenizer: Tokenizer, folder: Path) -> Path:
    model = build(**model_choices, vocab_size=tokenizer.vocab_size)
    to_hf(model, folder, tokenizer=tokenizer, format=format_of(model_choices))
    return folder


@pytest.mark.parametrize(("name", "choices"), [("gpt2", GPT2), ("gpt2_chatml", LLAMA), ("bpe_512", LLAMA)])
def test_auto_tokenizer_gives_our_ids(
    transformers: Any, tiny_data: Path, tmp_path: Path, texts: list[str], name: str, choices: dict[str, Any]
) -> None:
    ours = load_tokenizer(name if name != "bpe_512" else tiny_data / name)
    folder = export(choices, ours, tmp_path / "out")
    theirs = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    assert len(theirs) == ours.vocab_size
    assert theirs.bos_token_id == theirs.eos_token_id == ours.eot_id
    for text in texts:
        ids = ours.encode(text)
        assert theirs(text).input_ids == ids
        assert theirs.decode(ids) == text
    for token, token_id in ours.special_ids.items():
        assert theirs.convert_tokens_to_ids(token) == token_id
        assert theirs.decode([token_id, *ours.encode("x")], skip_special_tokens=True) == "x"
    back = load_tokenizer(folder)
    assert back.encode_batch(texts) == ours.encode_batch(texts)
    assert back.special_ids == ours.special_ids


def test_auto_tokenizer_gives_our_ids_on_real_corpora(transformers: Any, shared_data: Path, tmp_path: Path) -> None:
    ours = load_tokenizer("gpt2")
    theirs = transformers.AutoTokenizer.from_pretrained(export(GPT2, ours, tmp_path / "out"), local_files_only=True)
    lines = (shared_data / "c4" / "c4_demo.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines[:200]]
    texts += [
        text for text, _ in json.loads((shared_data / "gpt2_bpe" / "gpt2_bpe_vectors_third_party.json").read_text())
    ]
    assert theirs(texts).input_ids == ours.encode_batch(texts)


@pytest.mark.parametrize("name", ["gpt2_chatml", "bpe_512"])
def test_chats_have_our_ids_and_ends(transformers: Any, tiny_data: Path, tmp_path: Path, name: str) -> None:
    ours = load_tokenizer(name if name != "bpe_512" else tiny_data / name)
    folder = export(LLAMA, ours, tmp_path / "out")
    theirs = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    chat: list[Message] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Give three reasons:\n1. one\n2. two"},
        {"role": "assistant", "content": "No.\n\n    Really, no."},
    ]
    assert theirs.apply_chat_template(chat)["input_ids"] == ours.encode_chat(chat)[0]
    prompt = theirs.apply_chat_template(chat[:2], add_generation_prompt=True)["input_ids"]
    assert prompt == ours.encode_chat_prompt(chat[:2])
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    assert model.generation_config.eos_token_id == [ours.eot_id, ours.special_ids["<|im_end|>"]]


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(tmp_path: Path) -> None:
    for write in (to_native, lambda model, folder, tokenizer: to_hf(model, folder, tokenizer=tokenizer, format="gpt2")):
        with pytest.raises(ValueError, match="tokenizer gpt2 has 50257 ids, more than the model's vocab_size 97"):
            write(build(**GPT2), tmp_path / "out", load_tokenizer("gpt2"))
    assert not list(tmp_path.iterdir())
