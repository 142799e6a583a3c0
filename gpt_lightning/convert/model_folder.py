"""Exported models as folders: config.json, model.safetensors, what else belongs to them."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

WEIGHTS = "model.safetensors"


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ValueError: there is no such file, or it holds something else.
    """
    if not path.is_file():
        missing = f"file {path}" if path.parent.is_dir() else f"folder {path.parent}"
        raise ValueError(f"there is no {missing}: an exported model is a folder with config.json and {WEIGHTS}.")
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds {type(content).__name__}, and must hold an object.")
    return content


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of model.safetensors, or of the files that model.safetensors.index.json names.

    Raises:
        ValueError: there are none, a file is missing or damaged, or they lie in pickles.
    """
    if (folder / WEIGHTS).is_file():
        return _read(folder / WEIGHTS)
    index = folder / f"{WEIGHTS}.index.json"
    if not index.is_file():
        if any(folder.glob("pytorch_model*.bin*")):
            raise ValueError(
                f"{folder} has its weights in pytorch_model.bin, which can run code when read: convert it to safetensors "
                "first, with transformers' from_pretrained and save_pretrained where you trust it."
            )
        raise ValueError(f"{folder} has no {WEIGHTS}.")
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(n, str) and Path(n).name == n for n in names.values()):
        raise ValueError(f"{index} has no weight_map from keys to files beside it.")
    weights: dict[str, Tensor] = {}
    for name in sorted(set(names.values())):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} lacks {name}, which {index.name} names.")
        weights |= _read(folder / name)
    return weights


def check_unoccupied(folder: Path) -> None:
    """What an export writes is new.

    Raises:
        ValueError: there is a file of this name, or a folder with something in it.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is not an empty folder: remove it or choose another.")


def write_model_folder(folder: Path, *, weights: Mapping[str, Tensor], texts: Mapping[str, str]) -> None:
    """Write weights and texts, by file name, as a new folder: it is there whole, or not at all.

    Raises:
        ValueError: the folder exists and is not empty.
    """
    check_unoccupied(folder)
    folder = folder.resolve()
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # of an export that was killed
    temporary.mkdir(parents=True)
    try:
        save_file(dict(weights), temporary / WEIGHTS, metadata={"format": "pt"})  # transformers asks for the format
        for name, text in texts.items():
            (temporary / name).write_text(text, encoding="utf-8")
        (temporary / WEIGHTS).chmod(temporary.stat().st_mode & 0o666)  # safetensors lets nobody but the owner read
        for path in temporary.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        temporary.replace(folder)
    except SafetensorError as error:  # what a full disk is to safetensors
        shutil.rmtree(temporary, ignore_errors=True)
        raise OSError(f"{folder} could not be written: {error}.") from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def to_json(content: Mapping[str, Any]) -> str:
    """An object as the text of a JSON file."""
    return json.dumps(content, indent=2) + "\n"


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is no undamaged safetensors file: {error}.") from error
