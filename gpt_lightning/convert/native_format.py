"""The native model folder, which can hold every GPT. `transformers` loads it with `trust_remote_code=True`.

model.safetensors            the state dict; a tied head is stored once
config.json                  {"model_type": "gpt_lightning", the fields of GPTConfig, and what transformers needs}
modeling_gpt_lightning.py    the model for transformers
tokenizer.json, …            only if the tokenizer is known
"""

from collections.abc import Mapping
from dataclasses import asdict
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpt_lightning.convert.hf_architecture import standard_attention
from gpt_lightning.convert.model_folder_io import read_json, read_weights, to_json, write_model_folder
from gpt_lightning.convert.tokenizer_files import check_vocabulary_size, tokenizer_files
from gpt_lightning.convert.weight_renaming import (
    RenamingTable,
    WeightMapping,
    check_sizes,
    dtype_name,
    to_our_names,
    to_their_names,
)
from gpt_lightning.model import GPT, GPTConfig
from gpt_lightning.model.attention_selection import portable_attention
from gpt_lightning.tokenizer import Tokenizer

MODEL_TYPE = "gpt_lightning"
_CODE = Path(__file__).parent / "transformers_code" / "modeling_gpt_lightning.py"
_OF_TRANSFORMERS = {"architectures", "auto_map", "tie_word_embeddings", "bos_token_id", "eos_token_id", "torch_dtype"}


def from_native(folder: str | Path) -> GPT:
    """Load a model from a folder that `to_native` wrote.

    Args:
        folder: Contains config.json and model.safetensors.

    Returns:
        The model in eval mode, on the CPU.

    Raises:
        ValueError: The folder has another format, or a weight is missing, unknown or has an unexpected shape or dtype.
    """
    folder = Path(folder)
    path = folder / "config.json"
    fields = read_json(path)
    if fields.pop("model_type", None) != MODEL_TYPE:
        raise ValueError(f"{path} does not have model_type {MODEL_TYPE}: load models of other projects with from_hf.")
    known = {field.name for field in dataclass_fields(GPTConfig)} | _OF_TRANSFORMERS
    if "transformers_version" in fields:  # transformers has saved it, with many options of its own
        fields = {key: value for key, value in fields.items() if key in known}
    ours = {key: value for key, value in fields.items() if key not in _OF_TRANSFORMERS}
    return build_model(read_config(ours, where=path), read_weights(folder), where=folder)


def to_native(model: GPT, folder: str | Path, tokenizer: Tokenizer | None = None) -> None:
    """Write a model, and its tokenizer if given, to a new folder.

    Args:
        model: The model to export.
        folder: Where to write; it must not exist or must be empty.
        tokenizer: The model's tokenizer; None writes no tokenizer file.

    Raises:
        ValueError: The folder exists and is not empty, or the tokenizer has more ids than the model.
    """
    check_vocabulary_size(tokenizer, model)
    texts = {"config.json": to_json(_config_json(model, tokenizer))}
    if _has_code(model.config):
        texts[_CODE.name] = _CODE.read_text(encoding="utf-8")
    if tokenizer is not None:
        texts |= tokenizer_files(tokenizer, max_seq_len=model.config.max_seq_len)
    write_model_folder(Path(folder), weights=to_their_names(model, _own_names(model.config)), texts=texts)


def read_config(fields: Mapping[str, Any], *, where: Path) -> GPTConfig:
    """Build the config of a saved model.

    A standard attention backend becomes "auto", because the device may differ from that of training.

    Args:
        fields: Fields of GPTConfig.
        where: The file with the fields, for error messages.

    Raises:
        ValueError: A field is unknown, missing or out of range.
    """
    try:
        attention = portable_attention(str(fields.get("attention", "auto")))
        return GPTConfig(**{**fields, "attention": attention})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {str(error).rstrip('.')}.") from error


def build_model(config: GPTConfig, weights: Mapping[str, Tensor], *, where: Path) -> GPT:
    """As `to_our_names`, for weights that already have our names."""
    check_sizes(config, weights, where=where)
    return to_our_names(config, weights, _own_names(config), where=where)


def _has_code(config: GPTConfig) -> bool:
    """Whether modeling_gpt_lightning.py computes this model, which a user's own parts prevent."""
    parts = {
        "norm": ("layernorm", "rmsnorm"),
        "feed_forward": ("gelu", "gelu_tanh", "relu2", "swiglu"),
        "position": ("learned", "rope"),
        "attention": standard_attention(),
    }
    return all(getattr(config, part) in names for part, names in parts.items())


def _config_json(model: GPT, tokenizer: Tokenizer | None) -> dict[str, Any]:
    eot_id = model.config.eot_id if tokenizer is None else tokenizer.eot_id
    class_prefix = f"{_CODE.stem}.GPTLightning"
    code = {"AutoConfig": f"{class_prefix}Config", "AutoModelForCausalLM": f"{class_prefix}ForCausalLM"}
    return {
        "model_type": MODEL_TYPE,
        **asdict(model.config),
        "architectures": ["GPTLightningForCausalLM"],
        **({"auto_map": code} if _has_code(model.config) else {}),
        "tie_word_embeddings": model.config.tie_embeddings,
        "bos_token_id": eot_id,
        "eos_token_id": eot_id,
        "torch_dtype": dtype_name(model.head.weight),
    }


def _own_names(config: GPTConfig) -> RenamingTable:
    with torch.device("meta"):
        return tuple(WeightMapping(key, (key,)) for key in GPT(config).state_dict())
