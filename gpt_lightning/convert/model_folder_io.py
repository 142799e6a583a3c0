"""Read and write folders of exported models: config.json, model.safetensors and tokenizer files."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

WEIGHTS = "model.safetensors"


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        ValueError: The file is missing, is not JSON, or holds something other than an object.
    """
    if not path.is_file():
        missing = f"file {path}" if path.parent.is_dir() else f"folder {path.parent}"
        raise ValueError(f"{missing} does not exist: an exported model is a folder with config.json and {WEIGHTS}.")
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds {type(content).__name__}: it must hold a JSON object.")
    return content


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read all tensors of model.safetensors, or of the files that model.safetensors.index.json lists.

    Raises:
        ValueError: There are no weights, a file is missing or damaged, or the weights are pickled.
    """
    if (folder / WEIGHTS).is_file():
        return _read(folder / WEIGHTS)
    index = folder / f"{WEIGHTS}.index.json"
    if not index.is_file():
        if any(folder.glob("pytorch_model*.bin*")):
            raise ValueError(
                f"{folder} has its weights in pytorch_model.bin, which can execute code when loaded: it must have "
                "safetensors files. If you trust it, convert it with transformers' from_pretrained and "
                "save_pretrained."
            )
        raise ValueError(f"{folder} lacks {WEIGHTS}: choose the folder of an exported model.")
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(n, str) and Path(n).name == n for n in names.values()):
        raise ValueError(
            f"{index} lacks a valid weight_map: it must map weight names to names of files in the same folder."
        )
    weights: dict[str, Tensor] = {}
    for name in sorted(set(names.values())):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} lacks {name}, which {index.name} lists: copy or download it again.")
        weights |= _read(folder / name)
    return weights


def check_unoccupied(folder: Path) -> None:
    """Check that an export would not overwrite anything.

    Raises:
        ValueError: `folder` is a file, or a folder that is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is not an empty folder: remove it or choose another.")


def write_model_folder(folder: Path, *, weights: Mapping[str, Tensor], texts: Mapping[str, str]) -> None:
    """Write a new model folder, completely or not at all.

    Args:
        folder: Where to write; it must not exist or must be empty.
        weights: Weight name -> tensor, for model.safetensors.
        texts: File name -> content of the other files.

    Raises:
        ValueError: The folder exists and is not empty.
        OSError: The files cannot be written.
    """
    with new_folder(folder) as temporary:
        try:
            save_file(dict(weights), temporary / WEIGHTS, metadata={"format": "pt"})  # transformers requires the format
        except SafetensorError as error:  # safetensors raises this if the disk is full
            raise OSError(f"{folder} cannot be written: {error}.") from error
        for name, text in texts.items():
            (temporary / name).write_text(text, encoding="utf-8")
        (temporary / WEIGHTS).chmod(temporary.stat().st_mode & 0o666)  # safetensors makes it readable only by the owner


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Create a folder, completely or not at all.

    Yields:
        A temporary folder to fill. It becomes `folder` at the end, or is removed after an error.

    Raises:
        ValueError: The folder exists and is not empty.
    """
    check_unoccupied(folder)
    folder = folder.resolve()
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # left by an export that was killed
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for path in temporary.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        temporary.replace(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def to_json(content: Mapping[str, Any]) -> str:
    """Format an object as the content of a JSON file."""
    return json.dumps(content, indent=2) + "\n"


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or not a safetensors file: {error}.") from error
