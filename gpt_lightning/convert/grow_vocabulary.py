"""More ids for a trained model: a chat's special tokens, or a multiple that hardware likes."""

from dataclasses import replace
from pathlib import Path

import torch

from gpt_lightning.convert.native_format import build_model
from gpt_lightning.convert.weight_renaming import EMBEDDING, HEAD
from gpt_lightning.model import GPT


def grow_vocabulary(model: GPT, vocab_size: int) -> GPT:
    """A copy of the model with `vocab_size` rows in embedding and head; each new row is the mean of the old ones.

    The old ids keep their logits.

    Raises:
        ValueError: that would be fewer rows than there are.
    """
    config = replace(model.config, vocab_size=vocab_size, attention="auto")
    n_new = vocab_size - model.config.vocab_size
    if n_new < 0:
        raise ValueError(
            f"vocab_size is {vocab_size}, less than the model's {model.config.vocab_size}: it can only grow."
        )
    weights = {key: weight.cpu() for key, weight in model.state_dict().items()}
    for key in (EMBEDDING, HEAD):
        mean = weights[key].float().mean(dim=0, keepdim=True).to(weights[key].dtype)
        weights[key] = torch.cat([weights[key], mean.expand(n_new, -1)])
    return build_model(config, weights, where=Path("the grown model"))
