"""Check whether a path can be a model, without importing torch, so that a wrong path is reported immediately."""

from pathlib import Path


def check_model_path(path: Path) -> None:
    """Check that a path exists and has the files of a run or an exported model.

    Raises:
        ValueError: The path does not exist, or is a folder that is neither a run nor an exported model.
    """
    if not path.exists():
        raise ValueError(
            f"{path} does not exist: it must be a run directory, a checkpoint, or the folder of an exported model."
        )
    if path.is_dir() and any(path.glob("step_*.pt")):
        raise ValueError(f"{path} is the checkpoint folder of a run: use {path.parent}, or one of its step_….pt files.")
    is_model = path.is_file() or (path / "checkpoints").is_dir() or (path / "config.json").is_file()
    if not is_model and (path / "plan.json").is_file():
        raise ValueError(
            f"{path} contains a plan but no checkpoint: train the run first, with the settings of the plan."
        )
    if not is_model:
        raise ValueError(
            f"{path} is not a model: it must be a run directory with a checkpoints folder, or an exported model with "
            "a config.json."
        )
