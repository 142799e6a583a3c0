"""Checkpoints of torch.save by others: read without running what is in them."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

COMPILED_PREFIX = "_orig_mod."


def read_torch_file(path: Path) -> dict[str, Any]:
    """The dict in a file of torch.save, its tensors on the CPU; no code in it can run.

    Raises:
        ValueError: there is no such file, it is none of torch.save, or it holds other objects than tensors and plain values.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # what is no checkpoint makes torch raise almost anything
        raise ValueError(
            f"{path} cannot be read: it must be a file of torch.save with nothing but tensors and plain values."
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds {type(content).__name__}, and must hold a dict.")
    return content


def extract_weights(content: dict[str, Any], key: str, *, where: Path) -> dict[str, Tensor]:
    """The state dict under a key of a checkpoint, without the prefix that torch.compile may have left.

    Raises:
        ValueError: there is none, or it holds something that is no tensor.
    """
    if key not in content:
        raise ValueError(f"{where} has no {key}: it is another project's checkpoint, or none.")
    weights = content[key]
    if not isinstance(weights, dict):
        raise ValueError(f"{where}: {key} is {type(weights).__name__}, and must be a dict of tensors.")
    for name, weight in weights.items():
        if not isinstance(weight, Tensor):
            raise ValueError(f"{where}: {name} in {key} is {type(weight).__name__}, and must be a tensor.")
    return {str(name).removeprefix(COMPILED_PREFIX): weight for name, weight in weights.items()}
