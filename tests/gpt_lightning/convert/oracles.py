"""What the tests of conversion share: small models of every make, and when two are the same."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.gpt_lightning.tiny_models import GPT2, LLAMA, VOCAB_SIZE, sequences

SMALL_GPT2 = {"vocab_size": VOCAB_SIZE, "n_positions": 16, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 48}
SMALL_GPT2 |= {"bos_token_id": 5, "eos_token_id": 5}
SMALL_LLAMA = {
    "vocab_size": VOCAB_SIZE,
    "max_position_embeddings": 16,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "rms_norm_eps": 1e-5,
}
FOREIGN = {"vocab_size": VOCAB_SIZE, "context": 16, "d_model": 128, "n_layers": 2, "n_heads": 2, "d_ff": 48}
CONVERTED = {
    "gpt2": GPT2,
    "gpt2, exact gelu, untied": GPT2 | {"feed_forward": "gelu", "tie_embeddings": False},
    "llama": LLAMA,
    "llama, grouped queries, tied": LLAMA | {"n_kv_heads": 2, "tie_embeddings": True},
}


def shaken(model: nn.Module) -> Any:
    """The model with every weight random, biases and norms too, so that none can stand in for another."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
    return model.eval()


def foreign(build_foreign: type[nn.Module], **changes: Any) -> Any:
    model = build_foreign(**FOREIGN | changes)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    return shaken(model)


def same(model: Callable[[Tensor], Tensor], oracle: Callable[[Tensor], Any], tolerance: float = 1e-4) -> bool:
    with torch.no_grad():
        token_ids = sequences()[0]
        expected = oracle(token_ids)
        difference = model(token_ids) - getattr(expected, "logits", expected)
    return bool(difference.abs().max() <= tolerance)


def same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[key].dtype == other[key].dtype and torch.equal(one[key], other[key]) for key in one
    )


def format_of(choices: dict[str, Any]) -> str:
    return "gpt2" if choices["position"] == "learned" else "llama"
