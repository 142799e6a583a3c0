"""Our own folder: every GPT fits in.

model.safetensors    the model's state dict; a tied head once
config.json          {"model_type": "gpt_lightning", and the fields of GPTConfig}
tokenizer.json       where the tokenizer is known
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpt_lightning.convert.model_folder import read_json, read_weights, to_json, write_model_folder
from gpt_lightning.convert.tokenizer_files import check_vocabulary_size
from gpt_lightning.convert.weight_renaming import (
    RenamingTable,
    WeightMapping,
    check_sizes,
    to_our_names,
    to_their_names,
)
from gpt_lightning.model import GPT, GPTConfig
from gpt_lightning.tokenizer import Tokenizer

MODEL_TYPE = "gpt_lightning"


def from_native(folder: str | Path) -> GPT:
    """The GPT of a folder that `to_native` wrote.

    Raises:
        ValueError: the folder is none of these, or a weight is missing, strange or of another shape or dtype.
    """
    folder = Path(folder)
    path = folder / "config.json"
    fields = read_json(path)
    if fields.pop("model_type", None) != MODEL_TYPE:
        raise ValueError(f"{path} has no model_type {MODEL_TYPE}: it is another project's model, for from_hf.")
    return build_model(read_config(fields, where=path), read_weights(folder), where=folder)


def to_native(model: GPT, folder: str | Path, tokenizer: Tokenizer | None = None) -> None:
    """Write a model, and its tokenizer if given, as a new folder.

    Raises:
        ValueError: the folder exists and is not empty, or the tokenizer has more ids than the model.
    """
    check_vocabulary_size(tokenizer, model)
    texts = {"config.json": to_json({"model_type": MODEL_TYPE} | asdict(model.config))}
    if tokenizer is not None:
        texts["tokenizer.json"] = tokenizer.to_hf_json()
    write_model_folder(Path(folder), weights=to_their_names(model, _own_names(model.config)), texts=texts)


def read_config(fields: Mapping[str, Any], *, where: Path) -> GPTConfig:
    """The config of a trained model; on the device at hand another attention backend may be the right one.

    Raises:
        ValueError: a field is unknown, missing, or out of its range.
    """
    try:
        return GPTConfig(**{**fields, "attention": "auto"})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {str(error).rstrip('.')}.") from error


def build_model(config: GPTConfig, weights: Mapping[str, Tensor], *, where: Path) -> GPT:
    """`to_our_names` for weights under our own names."""
    check_sizes(config, weights, where=where)
    return to_our_names(config, weights, _own_names(config), where=where)


def _own_names(config: GPTConfig) -> RenamingTable:
    with torch.device("meta"):
        return tuple(WeightMapping(key, (key,)) for key in GPT(config).state_dict())
