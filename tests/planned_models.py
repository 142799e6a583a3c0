"""Models on the meta device, as plan.py sees them."""

from typing import Any

from gpt_lightning.model import GPT, GPTConfig
from gpt_lightning.model.model_size import build_meta_model
from running.config.compose import compose_config

SMALL: dict[str, Any] = {
    "vocab_size": 64,
    "max_seq_len": 64,
    "d_model": 64,
    "n_layers": 2,
    "n_heads": 4,
    "d_ff": 256,
    "eot_id": 0,
}


def small_config(**options: Any) -> GPTConfig:
    return GPTConfig(**SMALL | options)


def small_model(**options: Any) -> GPT:
    return build_meta_model(small_config(**options))


def shipped_config(name: str, tokenizer: str = "gpt2", **options: Any) -> GPTConfig:
    """conf/model/<name>.yaml."""
    section = compose_config("train", [f"model={name}", f"tokenizer={tokenizer}"])["model"]
    return GPTConfig(**section | options, eot_id=0)


def shipped_model(name: str, tokenizer: str = "gpt2", **options: Any) -> GPT:
    return build_meta_model(shipped_config(name, tokenizer, **options))
