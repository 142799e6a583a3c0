"""Read checkpoints of RangeFlow-GPT, a GPT-2 with the exact GELU."""

from pathlib import Path
from typing import Any

from gpt_lightning.convert.torch_checkpoints import extract_weights, read_torch_file
from gpt_lightning.convert.weight_renaming import (
    EMBEDDING,
    HEAD,
    WeightMapping,
    count_blocks,
    to_our_names,
    weight_shape,
)
from gpt_lightning.model import GPT, GPTConfig

STATE = "model_state_dict"
_D_HEAD = 64
_GPT2_EOT_ID = 50256
_TABLE = (
    WeightMapping(EMBEDDING, ("token_embed.weight",)),
    WeightMapping("positions.weight", ("pos_embed.weight",)),
    WeightMapping("blocks.N.norm_attention.weight", ("blocks.N.ln1.weight",)),
    WeightMapping("blocks.N.norm_attention.bias", ("blocks.N.ln1.bias",)),
    WeightMapping("blocks.N.attention.qkv.weight", ("blocks.N.attn.qkv_proj.weight",)),
    WeightMapping("blocks.N.attention.qkv.bias", ("blocks.N.attn.qkv_proj.bias",)),
    WeightMapping("blocks.N.attention.out.weight", ("blocks.N.attn.out_proj.weight",)),
    WeightMapping("blocks.N.attention.out.bias", ("blocks.N.attn.out_proj.bias",)),
    WeightMapping("blocks.N.norm_feed_forward.weight", ("blocks.N.ln2.weight",)),
    WeightMapping("blocks.N.norm_feed_forward.bias", ("blocks.N.ln2.bias",)),
    WeightMapping("blocks.N.feed_forward.up.weight", ("blocks.N.ff.linear1.weight",)),
    WeightMapping("blocks.N.feed_forward.up.bias", ("blocks.N.ff.linear1.bias",)),
    WeightMapping("blocks.N.feed_forward.out.weight", ("blocks.N.ff.linear2.weight",)),
    WeightMapping("blocks.N.feed_forward.out.bias", ("blocks.N.ff.linear2.bias",)),
    WeightMapping("norm.weight", ("ln_final.weight",)),
    WeightMapping("norm.bias", ("ln_final.bias",)),
    WeightMapping(HEAD, ("head.weight",)),
)


def from_rangeflow(path: str | Path) -> GPT:
    """Load a RangeFlow-GPT checkpoint (.pt).

    The sizes follow from the shapes of the weights. The number of heads is `n_heads` or `num_heads` in the file's
    `config` if present, otherwise d_model / 64, as RangeFlow-GPT defines it.

    Args:
        path: The checkpoint file.

    Returns:
        The model in eval mode, on the CPU, in the dtype of the file.

    Raises:
        ValueError: The file is not a RangeFlow-GPT checkpoint, or a weight is missing, unknown or has an unexpected
            shape or dtype.
    """
    path = Path(path)
    return read_rangeflow(read_torch_file(path), path)


def read_rangeflow(content: dict[str, Any], path: Path) -> GPT:
    """As `from_rangeflow`, for file content that is already loaded."""
    weights = extract_weights(content, STATE, where=path)
    vocab_size, d_model = weight_shape(weights, "token_embed.weight", where=path)
    max_seq_len, _ = weight_shape(weights, "pos_embed.weight", where=path)
    d_ff, _ = weight_shape(weights, "blocks.0.ff.linear1.weight", where=path)
    try:
        config = GPTConfig(
            vocab_size=vocab_size,
            max_seq_len=max_seq_len,
            d_model=d_model,
            n_layers=count_blocks(weights, "blocks."),
            n_heads=_n_heads(content.get("config"), d_model),
            d_ff=d_ff,
            norm="layernorm",
            feed_forward="gelu",
            position="learned",
            bias=True,
            tie_embeddings=True,
            residual_init="plain",
            eot_id=_GPT2_EOT_ID if vocab_size > _GPT2_EOT_ID else None,
            dropout=0.1,
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return to_our_names(config, weights, _TABLE, where=path)


def _n_heads(config: Any, d_model: int) -> Any:
    said = config if isinstance(config, dict) else {}
    for key in ("n_heads", "num_heads"):
        if key in said:
            return said[key]
    if d_model % _D_HEAD:
        raise ValueError(
            f"d_model is {d_model}: it must be a multiple of {_D_HEAD}, or the file's config must have n_heads or "
            "num_heads."
        )
    return d_model // _D_HEAD
