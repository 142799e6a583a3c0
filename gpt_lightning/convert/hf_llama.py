"""Llama in `transformers`. RoPE pairs dimension j with j + d_head/2, as in our model, so no rows are reordered."""

import re
from collections.abc import Mapping
from typing import Any

from gpt_lightning.convert.hf_architecture import Architecture
from gpt_lightning.convert.weight_renaming import EMBEDDING, HEAD, WeightMapping
from gpt_lightning.model import GPTConfig
from gpt_lightning.model.norms import EPS
from gpt_lightning.model.positions import ROPE_THETA

_ATTENTION, _MLP = "model.layers.N.self_attn", "model.layers.N.mlp"
_TABLE = (
    WeightMapping(EMBEDDING, ("model.embed_tokens.weight",)),
    WeightMapping("blocks.N.norm_attention.weight", ("model.layers.N.input_layernorm.weight",)),
    WeightMapping("blocks.N.attention.qkv.weight", tuple(f"{_ATTENTION}.{part}_proj.weight" for part in "qkv")),
    WeightMapping("blocks.N.attention.out.weight", (f"{_ATTENTION}.o_proj.weight",)),
    WeightMapping("blocks.N.norm_feed_forward.weight", ("model.layers.N.post_attention_layernorm.weight",)),
    WeightMapping("blocks.N.feed_forward.gate_up.weight", (f"{_MLP}.gate_proj.weight", f"{_MLP}.up_proj.weight")),
    WeightMapping("blocks.N.feed_forward.out.weight", (f"{_MLP}.down_proj.weight",)),
    WeightMapping("norm.weight", ("model.norm.weight",)),
    WeightMapping(HEAD, ("lm_head.weight",)),
)


def _read(options: Mapping[str, Any]) -> GPTConfig:
    config = GPTConfig(
        vocab_size=options["vocab_size"],
        max_seq_len=options["max_position_embeddings"],
        d_model=options["hidden_size"],
        n_layers=options["num_hidden_layers"],
        n_heads=options["num_attention_heads"],
        n_kv_heads=options["num_key_value_heads"],
        d_ff=options["intermediate_size"],
        norm="rmsnorm",
        feed_forward="swiglu",
        position="rope",
        bias=False,
        tie_embeddings=options["tie_word_embeddings"],
    )
    if options["head_dim"] not in (None, config.d_head):
        raise ValueError(
            f"head_dim is {options['head_dim']}: it must be hidden_size / num_attention_heads = {config.d_head}, the "
            "only head size supported"
        )
    return config


def _expressible(config: GPTConfig) -> dict[str, tuple[Any, ...]]:
    return {
        "norm": ("rmsnorm",),
        "feed_forward": ("swiglu",),
        "position": ("rope",),
        "bias": (False,),
        "qk_norm": (False,),
        "logit_soft_cap": (None,),
    }


def _write(config: GPTConfig) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "max_position_embeddings": config.max_seq_len,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.d_head,
        "intermediate_size": config.d_ff,
        "hidden_act": "silu",
        "rms_norm_eps": EPS,
        "rope_theta": ROPE_THETA,  # read by transformers 4; transformers 5 reads rope_parameters
        "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_THETA},
        "attention_bias": False,
        "mlp_bias": False,
    }


LLAMA = Architecture(
    table=_TABLE,
    prefix="model.",
    derived=re.compile(r"(model\.)?layers\.\d+\.self_attn\.rotary_emb\.inv_freq"),
    silent={
        "vocab_size": 32000,
        "max_position_embeddings": 2048,
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": None,
        "head_dim": None,
        "intermediate_size": 11008,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "eos_token_id": 2,
    },
    only={
        "hidden_act": "silu",
        "rms_norm_eps": EPS,
        "rope_theta": ROPE_THETA,
        "partial_rotary_factor": 1.0,
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "sliding_window": None,
        "quantization_config": None,
    },
    read=_read,
    expressible=_expressible,
    write=_write,
)
