"""Add token ids to a trained model, for chat tokens or to round up the vocabulary size for the hardware."""

from dataclasses import replace
from pathlib import Path

import torch

from gpt_lightning.convert.native_format import build_model
from gpt_lightning.convert.weight_renaming import EMBEDDING, HEAD
from gpt_lightning.model import GPT
from gpt_lightning.model.attention_selection import portable_attention


def grow_vocabulary(model: GPT, vocab_size: int) -> GPT:
    """Copy a model with more rows in its embedding and head. Each new row is the mean of the old rows.

    The logits of the old ids do not change.

    Args:
        model: The trained model; it is not changed.
        vocab_size: Number of rows of the copy.

    Returns:
        The copy in eval mode, on the CPU, in the dtype of the model.

    Raises:
        ValueError: vocab_size is smaller than that of the model.
    """
    config = replace(model.config, vocab_size=vocab_size, attention=portable_attention(model.config.attention))
    n_new = vocab_size - model.config.vocab_size
    if n_new < 0:
        raise ValueError(
            f"vocab_size is {vocab_size}: it must be at least {model.config.vocab_size}, the vocab_size of the model."
        )
    weights = {key: weight.cpu() for key, weight in model.state_dict().items()}
    for key in (EMBEDDING, HEAD):
        mean = weights[key].float().mean(dim=0, keepdim=True).to(weights[key].dtype)
        weights[key] = torch.cat([weights[key], mean.expand(n_new, -1)])
    return build_model(config, weights, where=Path("the grown model"))
