"""Checkpoints of GPT-2.5.

Its RoPE turns neighbouring dimensions (0 with 1, 2 with 3, …), ours dimension j with j + d_head/2. A head's dimensions have no
order of their own: scores are sums over them. So the rows of Wq and Wk are put in our order, even ones before odd ones in
each head, and the same pairs turn by the same angles.
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
"""Of a cosine or sine: what bf16 rounds away is below, what another theta changes is far above."""


def from_gpt2_5(path: str | Path) -> GPT:
    """The GPT of a GPT-2.5 checkpoint (.pt), the rows of its Wq and Wk put in our order for RoPE.

    Sizes follow from the weights, and those of a head and of the context from the tables of cosines and sines, which are
    checked against theta 10,000 and dropped. Which tokenizer it was trained with, the file does not say: eot_id is None.

    Raises:
        ValueError: the file is no such checkpoint, its positions turn by other angles, or a weight is missing, strange or of
            another shape or dtype.
    """
    path = Path(path)
    return read_gpt2_5(read_torch_file(path), path)


def read_gpt2_5(content: dict[str, Any], path: Path) -> GPT:
    """`from_gpt2_5` for a file that has been read."""
    weights = extract_weights(content, STATE, where=path)
    vocab_size, d_model = weight_shape(weights, "emb.weight", where=path)
    d_ff, _ = weight_shape(weights, "tblocks.0.ffn.w1", where=path)
    max_seq_len, n_angles = weight_shape(weights, "tblocks.0.mhsa.rope.cos", where=path)
    if not n_angles or d_model % (2 * n_angles):
        raise ValueError(
            f"{path}: heads of 2 x {n_angles} dimensions, as tblocks.0.mhsa.rope.cos has them, are no part of d_model {d_model}."
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
    """Remove the tables of cosines and sines, which must be those of our RoPE."""
    ours = RotaryPositions(max_seq_len=config.max_seq_len, d_model=config.d_model, d_head=config.d_head)
    for number in range(config.n_layers):
        for name, expected in (("cos", ours.cos), ("sin", ours.sin)):
            key = f"tblocks.{number}.mhsa.rope.{name}"
            if key not in weights:
                raise ValueError(f"{path} lacks {key}: it is not the whole model, or another architecture.")
            table, expected = weights.pop(key), expected.squeeze(1)
            if table.shape != expected.shape or not torch.allclose(table.float(), expected, rtol=0, atol=_TOLERANCE):
                raise ValueError(
                    f"{path}: {key} is not the {tuple(expected.shape)} table of RoPE with theta {ROPE_THETA:g}."
                )
