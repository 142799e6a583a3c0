"""Start a training run from existing weights."""

import json
from dataclasses import fields, replace
from pathlib import Path

from gpt_lightning.convert.grow_vocabulary import grow_vocabulary
from gpt_lightning.convert.load_model import load_model
from gpt_lightning.model import GPT, GPTConfig

# Settings that a new training run may change. All others are part of the architecture of the weights.
FREE_SETTINGS = {"vocab_size", "dropout", "attention", "residual_init", "z_loss", "attend_across_documents", "eot_id"}


def model_from_initial_weights(path: str | Path, config: GPTConfig, *, same_tokenizer: bool = False) -> GPT:
    """Build a GPT with the architecture of `config` and load existing weights into it.

    If the config has a larger vocab_size than the weights, each new row is the mean of the old rows.

    Args:
        path: Any path that `load_model` accepts.
        config: Configuration of the model to train.
        same_tokenizer: True if the tokenizers were compared and are equal. Otherwise the end-of-text ids must be equal,
            if both are known. (The id in a Hugging Face config.json can be any id that ends generation.)

    Returns:
        The model in training mode, on the CPU, in fp32.

    Raises:
        ValueError: As for `load_model`, or the weights have a different architecture or tokenizer, or a larger vocabulary
            than the config.
    """
    loaded = load_model(path)
    names = [field.name for field in fields(GPTConfig) if field.name not in FREE_SETTINGS]
    other = [name for name in names if _meant(loaded.config, name) != _meant(config, name)]
    if other:
        settings = " ".join(f"model.{name}={_spelled(getattr(loaded.config, name))}" for name in other)
        raise ValueError(f"init_from={path} has a different architecture: set {settings} to match its weights.")
    ends = loaded.config.eot_id, config.eot_id
    if not same_tokenizer and None not in ends and ends[0] != ends[1]:
        raise ValueError(
            f"init_from={path} was trained with another tokenizer: its end-of-text id is {ends[0]}, and that of this "
            f"run is {ends[1]}. Use the tokenizer that the weights were trained with."
        )
    if config.vocab_size < loaded.config.vocab_size:
        raise ValueError(
            f"model.vocab_size is {config.vocab_size}: it must be at least {loaded.config.vocab_size}, the vocabulary "
            f"size of init_from={path}. Set model.vocab_size={loaded.config.vocab_size}."
        )
    model = GPT(config)
    model.load_state_dict(grow_vocabulary(loaded, config.vocab_size).state_dict())
    return model


def read_architecture(path: str | Path) -> dict[str, str]:
    """Return the `model.…` settings that a run needs to start from the weights at `path`.

    Args:
        path: Any path that `load_model` accepts.

    Returns:
        Setting name -> value in command-line syntax.

    Raises:
        ValueError: As for `load_model`.
    """
    config = load_model(path).config
    if config.kv_heads == config.n_heads:
        config = replace(config, n_kv_heads=None)
    names = [field.name for field in fields(GPTConfig) if field.name not in FREE_SETTINGS]
    return {name: _spelled(getattr(config, name)) for name in [*names, "vocab_size"]}


def _meant(config: GPTConfig, name: str) -> object:
    return config.n_heads // config.kv_heads if name == "n_kv_heads" else getattr(config, name)


def _spelled(value: object) -> str:
    """Format a value in command-line syntax."""
    return json.dumps(value).strip('"')
