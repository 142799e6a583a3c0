"""A model small enough to be asked one question at a time."""

from typing import Any

import pytest
import torch

from gpt_lightning.model import GPT, GPTConfig

KINDS: dict[str, dict[str, Any]] = {
    "documents see each other": {"position": "rope", "norm": "rmsnorm", "feed_forward": "swiglu", "bias": False},
    "documents apart": {"position": "learned", "attend_across_documents": False, "eot_id": 3, "n_kv_heads": 1},
}


@pytest.fixture(scope="session", params=KINDS)
def model(request: pytest.FixtureRequest) -> GPT:
    """With dropout, so that a score in training mode would show."""
    torch.manual_seed(1)
    sizes = {"vocab_size": 512, "max_seq_len": 48, "d_model": 32, "n_layers": 2, "n_heads": 2, "d_ff": 64}
    model = GPT(GPTConfig(**sizes, **KINDS[request.param], dropout=0.3))
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)  # far from uniform, so that a wrong place shows
    return model
