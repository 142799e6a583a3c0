"""Read files that other projects wrote with torch.save, without executing code in them."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

COMPILED_PREFIX = "_orig_mod."


def read_torch_file(path: Path) -> dict[str, Any]:
    """Load a torch.save file that holds a dict, with all tensors on the CPU. Code in the file is not executed.

    Raises:
        ValueError: The file is missing, was not written by torch.save, or holds objects other than tensors and plain
            values.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist: check the path.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # torch raises many exception types for files that are not checkpoints
        raise ValueError(
            f"{path} cannot be read: it must be a torch.save file that holds only tensors and plain values."
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} contains a {type(content).__name__}: it must contain a dict.")
    return content


def extract_weights(content: dict[str, Any], key: str, *, where: Path) -> dict[str, Tensor]:
    """Return the state dict under `key` in a checkpoint, without the prefix that torch.compile adds.

    Raises:
        ValueError: The key is missing, or its value is not a dict of tensors.
    """
    if key not in content:
        raise ValueError(f"{where} lacks {key}: it is not a checkpoint of the expected format.")
    weights = content[key]
    if not isinstance(weights, dict):
        raise ValueError(f"{where}: {key} is {type(weights).__name__}: it must be a dict of tensors.")
    for name, weight in weights.items():
        if not isinstance(weight, Tensor):
            raise ValueError(f"{where}: {name} in {key} is {type(weight).__name__}: it must be a tensor.")
    return {str(name).removeprefix(COMPILED_PREFIX): weight for name, weight in weights.items()}
