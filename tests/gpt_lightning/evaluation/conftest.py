"""A model small enough to be asked one question at a time."""

import pytest
import torch

from gpt_lightning.model import GPT, GPTConfig


@pytest.fixture(scope="session")
def model() -> GPT:
    """With dropout, so that a score in training mode would show."""
    torch.manual_seed(1)
    sizes = {"vocab_size": 512, "max_seq_len": 48, "d_model": 32, "n_layers": 2, "n_heads": 2, "d_ff": 64}
    model = GPT(GPTConfig(**sizes, position="rope", norm="rmsnorm", feed_forward="swiglu", bias=False, dropout=0.3))
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)  # far from uniform, so that a wrong place shows
    return model
