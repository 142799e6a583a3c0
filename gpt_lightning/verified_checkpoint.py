"""Checkpoints that are complete or absent, and are read only after verification.

    checkpoints/step_00000200.pt       tensors, numbers, strings: it loads with weights_only=True
    checkpoints/step_00000200.json     its manifest: sha256, size, step

Both files are written under temporary names in the final folder. The manifest is renamed first, then the .pt; from this
moment on, the checkpoint exists. A crash before that leaves at most hidden temporary files and a manifest without its
checkpoint.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

_CURRICULUM = {"curriculum": dict, "steps": int, "from_step": int}
_OF_A_RUN = {
    "global_step": int,
    "state_dict": dict,
    "optimizer_states": list,
    "model_config": dict,
    "diet": {"sources": dict, "curricula": [_CURRICULUM]},
}
"""Required keys and the types of their values. They are checked, because a checkpoint from elsewhere may contain
anything.
"""


def read_checkpoint(path: Path, *, map_location: Any = "cpu", mmap: bool = False) -> dict[str, Any]:
    """Verify and load a checkpoint. Code in it is not executed.

    Args:
        path: The .pt file; its manifest is the .json file next to it.
        map_location: Device of the tensors, as in torch.load.
        mmap: Leave the tensors on disk until they are used.

    Raises:
        ValueError: The file does not exist, has no manifest or does not match the manifest, or contains objects that
            would execute code.
    """
    if not path.is_file():
        raise ValueError(f"checkpoint {path} does not exist: check the path.")
    verify_checkpoint(path)
    return _load(path, map_location=map_location, mmap=mmap)


class CheckpointMetadata(NamedTuple):
    """Information about the run to which a checkpoint belongs."""

    step: int  # completed steps
    diet: dict[str, Any]  # what determines the order of the tokens, see `MixedDataModule.identity`
    config: dict[str, Any]  # settings of the run
    averaged: bool  # whether it holds averaged weights in place of the weights, and the weights separately


def read_checkpoint_metadata(path: Path) -> CheckpointMetadata:
    """Read the metadata of a checkpoint that has already been verified, without loading its tensors.

    Raises:
        ValueError: The file holds objects that would execute code, or is not a checkpoint of a run.
    """
    checkpoint = _load(path, map_location="cpu", mmap=True)
    if misfit := _misfit(checkpoint, _OF_A_RUN, "it"):
        raise ValueError(f"{path} is not a checkpoint of a run: {misfit}.")
    return CheckpointMetadata(
        checkpoint["global_step"], checkpoint["diet"], checkpoint.get("config", {}), "averaging_state" in checkpoint
    )


def read_optimizer_state(path: Path) -> dict[str, Any]:
    """Read the optimizer state from a run checkpoint that has already been verified. The tensors stay on disk."""
    (state,) = _load(path, map_location="cpu", mmap=True)["optimizer_states"]
    return dict(state)


def verify_checkpoint(path: Path) -> None:
    """Compare a checkpoint with its manifest.

    Raises:
        ValueError: The checkpoint does not match the manifest, or the manifest is missing.
    """
    manifest = path.with_suffix(".json")
    if not manifest.is_file():
        raise ValueError(
            f"{path} lacks its manifest {manifest.name}, which is needed to verify it: put the manifest next to the "
            "checkpoint. If you copied the checkpoint, copy both files."
        )
    if not is_valid_checkpoint(path):
        named = _file_of(manifest)
        if named not in (None, path.name):
            raise ValueError(
                f"{manifest} was written for {named}: a checkpoint and its manifest must keep their original names."
            )
        raise ValueError(f"{path} does not match its manifest {manifest.name}: it is damaged. Use an older checkpoint.")


def _file_of(manifest: Path) -> str | None:
    """Return the file name in a manifest; None if it cannot be read."""
    with suppress(ValueError, KeyError, TypeError):
        return str(json.loads(manifest.read_text())["file"])
    return None


def is_valid_checkpoint(path: Path) -> bool:
    """Return whether a checkpoint matches its manifest.

    Raises:
        OSError: The file cannot be read. This does not mean that the file is damaged.
    """
    try:
        manifest = json.loads(path.with_suffix(".json").read_text())
        if path.name != manifest["file"] or path.stat().st_size != manifest["size"]:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == manifest["sha256"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return False


def checkpoint_fingerprint(weights: Mapping[str, Tensor]) -> str:
    """Return the sha256 of the names and values of all weights."""
    digest = hashlib.sha256()
    for name, weight in weights.items():
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _load(path: Path, **options: Any) -> dict[str, Any]:
    try:
        content: dict[str, Any] = torch.load(path, weights_only=True, **options)
    except OSError:
        raise
    except Exception as error:  # torch raises many exception types for files that are not checkpoints
        raise ValueError(
            f"{path} holds objects other than tensors, numbers and strings, which could execute code: it is not a "
            "gpt-lightning checkpoint. Do not use it."
        ) from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} contains a {type(content).__name__}: it must contain a dict. It is not a gpt-lightning checkpoint."
        )
    return content


def _misfit(content: Any, form: Any, name: str) -> str | None:
    """Return the first value whose type differs from that in `form` (nested dicts, lists and types), as a clause."""
    kind = form if isinstance(form, type) else type(form)
    fits = isinstance(content, kind)
    if not fits:
        return f"{name} is {content!r:.40} and must be a {kind.__name__}"
    items: list[tuple[Any, Any, str]] = []
    if isinstance(form, dict):
        items = [(content.get(key), part, str(key)) for key, part in form.items()]
    elif isinstance(form, list):
        items = [(item, form[0], f"an item of {name}") for item in content]
    return next((misfit for item in items if (misfit := _misfit(*item))), None)
