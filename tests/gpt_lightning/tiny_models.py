"""Models in small, one for each family, and tokens for them."""

import torch
from torch import Tensor

from gpt_lightning.model import GPT, GPTConfig

GPT2 = {"norm": "layernorm", "feed_forward": "gelu_tanh", "position": "learned", "bias": True}
LLAMA = {"norm": "rmsnorm", "feed_forward": "swiglu", "position": "rope", "bias": False, "tie_embeddings": False}
MODERN = LLAMA | {"feed_forward": "relu2", "n_kv_heads": 2, "qk_norm": True, "logit_soft_cap": 15.0}
FAMILIES = {"gpt2": GPT2, "llama": LLAMA, "modern": MODERN}
VOCAB_SIZE = 97


def build(**choices: object) -> GPT:
    """A model of two layers with weights large enough for differences to show, the same each time."""
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCAB_SIZE, "max_seq_len": 16, "d_model": 32, "n_layers": 2, "n_heads": 4, "d_ff": 48}
    return GPT(GPTConfig(**sizes | {"attention": "sdpa"} | choices))  # type: ignore[arg-type]


def sequences(batch: int = 3, time: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids, targets and a loss mask."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, VOCAB_SIZE, (batch, time + 1), generator=generator)
    return ids[:, :-1], ids[:, 1:], torch.rand(batch, time, generator=generator) < 0.4
