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

from gpt_lightning.convert.model_folder import read_json, read_weights, to_json, write_folder
from gpt_lightning.convert.tokenizer_files import refuse_too_many_ids
from gpt_lightning.convert.weight_renaming import Line, Table, assemble, disassemble, refuse_other_sizes
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
    return with_weights(config_of(fields, where=path), read_weights(folder), where=folder)


def to_native(model: GPT, folder: str | Path, tokenizer: Tokenizer | None = None) -> None:
    """Write a model, and its tokenizer if given, as a new folder.

    Raises:
        ValueError: the folder exists and is not empty, or the tokenizer has more ids than the model.
    """
    refuse_too_many_ids(tokenizer, model)
    texts = {"config.json": to_json({"model_type": MODEL_TYPE} | asdict(model.config))}
    if tokenizer is not None:
        texts["tokenizer.json"] = tokenizer.to_hf_json()
    write_folder(Path(folder), weights=disassemble(model, _own_names(model.config)), texts=texts)


def config_of(fields: Mapping[str, Any], *, where: Path) -> GPTConfig:
    """The config of a trained model; on the device at hand another attention backend may be the right one.

    Raises:
        ValueError: a field is unknown, missing, or out of its range.
    """
    try:
        return GPTConfig(**{**fields, "attention": "auto"})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {str(error).rstrip('.')}.") from error


def with_weights(config: GPTConfig, weights: Mapping[str, Tensor], *, where: Path) -> GPT:
    """`assemble` for weights under our own names."""
    refuse_other_sizes(config, weights, where=where)
    return assemble(config, weights, _own_names(config), where=where)


def _own_names(config: GPTConfig) -> Table:
    with torch.device("meta"):
        return tuple(Line(key, (key,)) for key in GPT(config).state_dict())
