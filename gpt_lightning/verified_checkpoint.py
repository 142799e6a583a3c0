"""Checkpoints that are whole or absent, and are read only when they verify.

    checkpoints/step_00000200.pt       tensors, numbers, strings: it loads with weights_only=True
    checkpoints/step_00000200.json     its manifest: sha256, size, step

Both are staged in the folder they end in. The rename of the .pt, after its manifest is in place, is the moment at which the
checkpoint exists; a crash before it leaves at most hidden leftovers and a manifest without its file.
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
"""What a checkpoint must hold to be gone on from, and of which types: one that a stranger made may hold anything."""


def read_checkpoint(path: Path, *, map_location: Any = "cpu", mmap: bool = False) -> dict[str, Any]:
    """What a checkpoint holds; no code in it can run.

    Args:
        mmap: leave the tensors on the disk until they are used.

    Raises:
        ValueError: there is no such file, or it disagrees with its manifest, has none, or holds something to be executed.
    """
    if not path.is_file():
        raise ValueError(f"there is no checkpoint {path}.")
    verify_checkpoint(path)
    return _load(path, map_location=map_location, mmap=mmap)


class CheckpointMetadata(NamedTuple):
    """What a checkpoint says of the run that it belongs to."""

    step: int  # steps that are completed
    diet: dict[str, Any]  # what decided the order of its tokens, see `MixedDataModule.identity`
    config: dict[str, Any]  # its settings
    averaged: bool  # it holds an average of the weights in their place, and them beside it


def read_checkpoint_metadata(path: Path) -> CheckpointMetadata:
    """What a checkpoint that was verified says of its run; the tensors stay on the disk.

    Raises:
        ValueError: it holds something to be executed, or is no checkpoint of a run.
    """
    checkpoint = _load(path, map_location="cpu", mmap=True)
    if misfit := _misfit(checkpoint, _OF_A_RUN, "it"):
        raise ValueError(f"{path} is no checkpoint of a run: {misfit}.")
    return CheckpointMetadata(
        checkpoint["global_step"], checkpoint["diet"], checkpoint.get("config", {}), "averaging_state" in checkpoint
    )


def read_optimizer_state(path: Path) -> dict[str, Any]:
    """The optimizer's state in a checkpoint of a run that was verified; its tensors stay on the disk."""
    (state,) = _load(path, map_location="cpu", mmap=True)["optimizer_states"]
    return dict(state)


def verify_checkpoint(path: Path) -> None:
    """Compare a checkpoint with its manifest.

    Raises:
        ValueError: they disagree, or there is no manifest.
    """
    manifest = path.with_suffix(".json")
    if not manifest.is_file():
        raise ValueError(f"{path} lacks its manifest {manifest.name}, against which it is verified: copy both.")
    if not is_valid_checkpoint(path):
        named = _file_of(manifest)
        if named not in (None, path.name):
            raise ValueError(f"{manifest} is the manifest of {named}: a checkpoint and its manifest keep their names.")
        raise ValueError(f"{path} does not agree with its manifest {manifest.name}: use an older checkpoint.")


def _file_of(manifest: Path) -> str | None:
    """Which file a manifest is of, by its own word."""
    with suppress(ValueError, KeyError, TypeError):
        return str(json.loads(manifest.read_text())["file"])
    return None


def is_valid_checkpoint(path: Path) -> bool:
    """Whether a checkpoint agrees with its manifest.

    Raises:
        OSError: it cannot be read, which says nothing against it.
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
    """sha256 over names and bits."""
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
    except Exception as error:  # what is no checkpoint makes torch raise almost anything
        raise ValueError(
            f"{path} holds something else than tensors, numbers and texts, which would have to be executed: it is no checkpoint "
            "of gpt-lightning, do not use it."
        ) from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} holds {type(content).__name__}, and must hold a dict: it is no checkpoint of gpt-lightning."
        )
    return content


def _misfit(content: Any, form: Any, name: str) -> str | None:
    """What in a content is of another type than a form of dicts, lists and types says."""
    kind = form if isinstance(form, type) else type(form)
    fits = isinstance(content, kind)
    if not fits:
        return f"{name} is {content!r:.40}, and should be a {kind.__name__}"
    items: list[tuple[Any, Any, str]] = []
    if isinstance(form, dict):
        items = [(content.get(key), part, str(key)) for key, part in form.items()]
    elif isinstance(form, list):
        items = [(item, form[0], f"an item of {name}") for item in content]
    return next((misfit for item in items if (misfit := _misfit(*item))), None)
