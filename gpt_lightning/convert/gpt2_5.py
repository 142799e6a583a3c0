"""Read checkpoints of GPT-2.5.

GPT-2.5's RoPE rotates neighbouring dimensions (0 with 1, 2 with 3, …); ours rotates dimension j with j + d_head/2.
Attention scores are sums over the dimensions of a head, so their order is free. The rows of Wq and Wk are therefore
reordered, in each head the even ones before the odd ones, so that the same pairs are rotated by the same angles.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

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
from gpt_lightning.model.positions import ROPE_THETA, RotaryPositions

STATE = "model_state"
_TABLE = (
    WeightMapping(EMBEDDING, ("emb.weight",)),
    WeightMapping("blocks.N.norm_attention.weight", ("tblocks.N.norm_att.weight",)),
    WeightMapping("blocks.N.attention.qkv.weight", tuple(f"tblocks.N.mhsa.W{part}.weight" for part in "qkv")),
    WeightMapping("blocks.N.attention.out.weight", ("tblocks.N.mhsa.Wo.weight",)),
    WeightMapping("blocks.N.norm_feed_forward.weight", ("tblocks.N.norm_ff.weight",)),
    WeightMapping("blocks.N.feed_forward.gate_up.weight", ("tblocks.N.ffn.w1", "tblocks.N.ffn.w3")),
    WeightMapping("blocks.N.feed_forward.out.weight", ("tblocks.N.ffn.w2",)),
    WeightMapping("norm.weight", ("norm.weight",)),
    WeightMapping(HEAD, ("linear.weight",)),
)
_TOLERANCE = 5e-3
"""Of a cosine or sine. bf16 rounding errors are smaller; the effect of a different theta is far larger."""


def from_gpt2_5(path: str | Path) -> GPT:
    """Load a GPT-2.5 checkpoint (.pt), with the rows of Wq and Wk reordered for our RoPE.

    The sizes follow from the shapes of the weights, d_head and max_seq_len from the cosine and sine tables. These
    tables are checked against theta = 10,000 and dropped. The file does not name the tokenizer, so eot_id is None.

    Args:
        path: The checkpoint file.

    Returns:
        The model in eval mode, on the CPU, in the dtype of the file.

    Raises:
        ValueError: The file is not a GPT-2.5 checkpoint, its RoPE uses other angles, or a weight is missing, unknown or
            has an unexpected shape or dtype.
    """
    path = Path(path)
    return read_gpt2_5(read_torch_file(path), path)


def read_gpt2_5(content: dict[str, Any], path: Path) -> GPT:
    """As `from_gpt2_5`, for file content that is already loaded."""
    weights = extract_weights(content, STATE, where=path)
    vocab_size, d_model = weight_shape(weights, "emb.weight", where=path)
    d_ff, _ = weight_shape(weights, "tblocks.0.ffn.w1", where=path)
    max_seq_len, n_angles = weight_shape(weights, "tblocks.0.mhsa.rope.cos", where=path)
    if not n_angles or d_model % (2 * n_angles):
        raise ValueError(
            f"{path}: tblocks.0.mhsa.rope.cos has {n_angles} columns: it must have d_head / 2, and d_head must divide "
            f"d_model, {d_model}."
        )
    n_layers = count_blocks(weights, "tblocks.")
    try:
        config = GPTConfig(
            vocab_size=vocab_size,
            max_seq_len=max_seq_len,
            d_model=d_model,
            n_layers=n_layers,
            n_heads=d_model // (2 * n_angles),
            d_ff=d_ff,
            norm="rmsnorm",
            feed_forward="swiglu",
            position="rope",
            bias=False,
            tie_embeddings=False,
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    _take_tables(weights, config, path)
    model = to_our_names(config, weights, _TABLE, where=path)
    with torch.no_grad():
        for number in range(n_layers):
            qk = model.get_parameter(f"blocks.{number}.attention.qkv.weight")[: 2 * d_model]
            pairs = qk.unflatten(0, (-1, config.d_head // 2, 2))  # (heads of q and k, pairs, even or odd, d_model)
            qk.copy_(pairs.transpose(1, 2).flatten(0, 2))
    return model


def _take_tables(weights: dict[str, Tensor], config: GPTConfig, path: Path) -> None:
    """Remove the cosine and sine tables from `weights`, after checking that they equal those of our RoPE."""
    ours = RotaryPositions(max_seq_len=config.max_seq_len, d_model=config.d_model, d_head=config.d_head)
    for number in range(config.n_layers):
        for name, expected in (("cos", ours.cos), ("sin", ours.sin)):
            key = f"tblocks.{number}.mhsa.rope.{name}"
            if key not in weights:
                raise ValueError(
                    f"{path} lacks {key}: the file is incomplete or contains a different architecture. Use a complete "
                    "GPT-2.5 checkpoint."
                )
            table, expected = weights.pop(key), expected.squeeze(1)
            if table.shape != expected.shape or not torch.allclose(table.float(), expected, rtol=0, atol=_TOLERANCE):
                raise ValueError(
                    f"{path}: {key} differs from the RoPE table: it must have shape {tuple(expected.shape)} and "
                    f"theta {ROPE_THETA:g}."
                )
