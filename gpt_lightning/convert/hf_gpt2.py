"""GPT-2 in `transformers`, whose linear layers (Conv1D) have transposed weights."""

import re
from collections.abc import Mapping
from typing import Any

from gpt_lightning.convert.hf_architecture import Architecture
from gpt_lightning.convert.weight_renaming import EMBEDDING, HEAD, WeightMapping
from gpt_lightning.model import GPTConfig
from gpt_lightning.model.norms import EPS

_TABLE = (
    WeightMapping(EMBEDDING, ("transformer.wte.weight",)),
    WeightMapping("positions.weight", ("transformer.wpe.weight",)),
    WeightMapping("blocks.N.norm_attention.weight", ("transformer.h.N.ln_1.weight",)),
    WeightMapping("blocks.N.norm_attention.bias", ("transformer.h.N.ln_1.bias",)),
    WeightMapping("blocks.N.attention.qkv.weight", ("transformer.h.N.attn.c_attn.weight",), transposed=True),
    WeightMapping("blocks.N.attention.qkv.bias", ("transformer.h.N.attn.c_attn.bias",)),
    WeightMapping("blocks.N.attention.out.weight", ("transformer.h.N.attn.c_proj.weight",), transposed=True),
    WeightMapping("blocks.N.attention.out.bias", ("transformer.h.N.attn.c_proj.bias",)),
    WeightMapping("blocks.N.norm_feed_forward.weight", ("transformer.h.N.ln_2.weight",)),
    WeightMapping("blocks.N.norm_feed_forward.bias", ("transformer.h.N.ln_2.bias",)),
    WeightMapping("blocks.N.feed_forward.up.weight", ("transformer.h.N.mlp.c_fc.weight",), transposed=True),
    WeightMapping("blocks.N.feed_forward.up.bias", ("transformer.h.N.mlp.c_fc.bias",)),
    WeightMapping("blocks.N.feed_forward.out.weight", ("transformer.h.N.mlp.c_proj.weight",), transposed=True),
    WeightMapping("blocks.N.feed_forward.out.bias", ("transformer.h.N.mlp.c_proj.bias",)),
    WeightMapping("norm.weight", ("transformer.ln_f.weight",)),
    WeightMapping("norm.bias", ("transformer.ln_f.bias",)),
    WeightMapping(HEAD, ("lm_head.weight",)),
)
_ACTIVATIONS = {"gelu_tanh": "gelu_new", "gelu": "gelu"}  # ours -> theirs
_DROPOUTS = ("resid_pdrop", "embd_pdrop", "attn_pdrop")


def _read(options: Mapping[str, Any]) -> GPTConfig:
    feed_forwards = {theirs: ours for ours, theirs in _ACTIVATIONS.items()} | {"gelu_pytorch_tanh": "gelu_tanh"}
    if options["activation_function"] not in feed_forwards:
        raise ValueError(
            f"activation_function is {options['activation_function']!r}: it must be one of {', '.join(feed_forwards)}"
        )
    if len({options[key] for key in _DROPOUTS}) > 1:
        raise ValueError(f"{', '.join(_DROPOUTS)} differ: they must be equal, because our model has one dropout rate")
    return GPTConfig(
        vocab_size=options["vocab_size"],
        max_seq_len=options["n_positions"],
        d_model=options["n_embd"],
        n_layers=options["n_layer"],
        n_heads=options["n_head"],
        d_ff=4 * options["n_embd"] if options["n_inner"] is None else options["n_inner"],
        norm="layernorm",
        feed_forward=feed_forwards[options["activation_function"]],
        position="learned",
        bias=True,
        tie_embeddings=options["tie_word_embeddings"],
        dropout=options["resid_pdrop"],
    )


def _expressible(config: GPTConfig) -> dict[str, tuple[Any, ...]]:
    return {
        "norm": ("layernorm",),
        "feed_forward": tuple(_ACTIVATIONS),
        "position": ("learned",),
        "bias": (True,),
        "qk_norm": (False,),
        "n_kv_heads": (None, config.n_heads),
        "logit_soft_cap": (None,),
    }


def _write(config: GPTConfig) -> dict[str, Any]:
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_positions": config.max_seq_len,
        "n_embd": config.d_model,
        "n_layer": config.n_layers,
        "n_head": config.n_heads,
        "n_inner": config.d_ff,
        "activation_function": _ACTIVATIONS[config.feed_forward],
        "layer_norm_epsilon": EPS,
    } | dict.fromkeys(_DROPOUTS, config.dropout)


GPT2 = Architecture(
    table=_TABLE,
    prefix="transformer.",
    derived=re.compile(r"(transformer\.)?h\.\d+\.attn\.(bias|masked_bias)"),
    silent={
        "vocab_size": 50257,
        "n_positions": 1024,
        "n_embd": 768,
        "n_layer": 12,
        "n_head": 12,
        "n_inner": None,
        "activation_function": "gelu_new",
        "tie_word_embeddings": True,
        "eos_token_id": 50256,
    }
    | dict.fromkeys(_DROPOUTS, 0.1),
    only={
        "layer_norm_epsilon": EPS,
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
        "quantization_config": None,
    },
    read=_read,
    expressible=_expressible,
    write=_write,
)
