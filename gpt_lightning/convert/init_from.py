"""A model to be trained on from weights that exist."""

import json
from dataclasses import fields, replace
from pathlib import Path

from gpt_lightning.convert.grow_vocabulary import grow_vocabulary
from gpt_lightning.convert.load_model import load_model
from gpt_lightning.model import GPT, GPTConfig

# What a training may choose anew; everything else is what the weights mean.
FREE_SETTINGS = {"vocab_size", "dropout", "attention", "residual_init", "z_loss", "attend_across_documents", "eot_id"}


def load_initial_weights(path: str | Path, config: GPTConfig, *, same_tokenizer: bool = False) -> GPT:
    """A GPT of `config` in training mode, in fp32, with the weights that `path` holds.

    Where the config has more ids than the weights, the new rows start as the mean of the old ones.

    Args:
        path: see `load_model`.
        config: of the model that is trained.
        same_tokenizer: whether the tokenizers were compared and agree; else the end-of-text ids must, if both are known. (That of
            a Hugging Face config.json may be any id at which generating ends.)

    Raises:
        ValueError: as `load_model`; or the weights are of other sizes or choices than the config, which are named.
    """
    loaded = load_model(path)
    names = [field.name for field in fields(GPTConfig) if field.name not in FREE_SETTINGS]
    other = [name for name in names if _meant(loaded.config, name) != _meant(config, name)]
    if other:
        settings = " ".join(f"model.{name}={_spelled(getattr(loaded.config, name))}" for name in other)
        raise ValueError(f"init_from={path} is another model: its weights go with {settings}.")
    ends = loaded.config.eot_id, config.eot_id
    if not same_tokenizer and None not in ends and ends[0] != ends[1]:
        raise ValueError(
            f"init_from={path} was trained with another tokenizer: its end-of-text id is {ends[0]}, and here it is {ends[1]}."
        )
    if config.vocab_size < loaded.config.vocab_size:
        raise ValueError(
            f"init_from={path} has a vocabulary of {loaded.config.vocab_size}, more than model.vocab_size="
            f"{config.vocab_size}: set model.vocab_size={loaded.config.vocab_size} or more."
        )
    model = GPT(config)
    model.load_state_dict(grow_vocabulary(loaded, config.vocab_size).state_dict())
    return model


def read_architecture(path: str | Path) -> dict[str, str]:
    """The settings `model.…` of a training that can begin with the weights that `path` holds, as the command line wants them.

    Raises:
        ValueError: as `load_model`.
    """
    config = load_model(path).config
    if config.kv_heads == config.n_heads:
        config = replace(config, n_kv_heads=None)
    names = [field.name for field in fields(GPTConfig) if field.name not in FREE_SETTINGS]
    return {name: _spelled(getattr(config, name)) for name in [*names, "vocab_size"]}


def _meant(config: GPTConfig, name: str) -> object:
    return config.n_heads // config.kv_heads if name == "n_kv_heads" else getattr(config, name)


def _spelled(value: object) -> str:
    """As the command line wants it."""
    return json.dumps(value).strip('"')
