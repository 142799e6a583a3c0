"""Whether a path can hold a model. Needs no torch, so that a wrong path is answered at once."""

from pathlib import Path


def check_model_path(path: Path) -> None:
    """Check what can be seen of a model from outside.

    Raises:
        ValueError: nothing is there, or a folder that is neither a run nor an exported model.
    """
    if not path.exists():
        raise ValueError(f"there is no {path}: give a run, a checkpoint, or the folder of an exported model.")
    if path.is_dir() and any(path.glob("step_*.pt")):
        raise ValueError(f"{path} holds a run's checkpoints: give {path.parent}, or one of its step_….pt.")
    if path.is_dir() and not (path / "checkpoints").is_dir() and not (path / "config.json").is_file():
        raise ValueError(
            f"{path} is not a model: it has neither checkpoints, as a run has, nor a config.json, as an export has."
        )
