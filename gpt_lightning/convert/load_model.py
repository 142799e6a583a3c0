"""Load a model from any supported format."""

from pathlib import Path
from typing import Any

from gpt_lightning.checkpoint_folder import newest_valid_checkpoint
from gpt_lightning.convert.gpt2_5 import STATE as GPT2_5_STATE
from gpt_lightning.convert.gpt2_5 import read_gpt2_5
from gpt_lightning.convert.hugging_face import from_hf
from gpt_lightning.convert.model_folder_io import read_json
from gpt_lightning.convert.native_format import MODEL_TYPE, build_model, from_native, read_config
from gpt_lightning.convert.rangeflow import STATE as RANGEFLOW_STATE
from gpt_lightning.convert.rangeflow import read_rangeflow
from gpt_lightning.convert.torch_checkpoints import extract_weights, read_torch_file
from gpt_lightning.model import GPT
from gpt_lightning.model_path_check import check_model_path
from gpt_lightning.verified_checkpoint import verify_checkpoint


def load_model(path: str | Path) -> GPT:
    """Load a model from any supported format.

    Args:
        path: A run directory (its newest valid checkpoint is used), a checkpoint of a run, a folder written by
            `to_native`, a Hugging Face folder, or a checkpoint of RangeFlow-GPT or GPT-2.5.

    Returns:
        The model in eval mode, on the CPU.

    Raises:
        ValueError: The path has none of these formats, or its content is damaged; the message names the file.
    """
    path = Path(path)
    check_model_path(path)
    if not path.is_dir():
        return _from_file(path)
    if (path / "checkpoints").is_dir():
        newest = newest_valid_checkpoint(path / "checkpoints")
        if newest is None:
            raise ValueError(f"{path} has no valid checkpoint in its checkpoints folder: choose a different run.")
        return _from_checkpoint(read_torch_file(newest), newest)
    is_native = read_json(path / "config.json").get("model_type") == MODEL_TYPE
    return from_native(path) if is_native else from_hf(path)


def _from_file(path: Path) -> GPT:
    content = read_torch_file(path)
    if "model_config" in content:
        verify_checkpoint(path)
        return _from_checkpoint(content, path)
    if RANGEFLOW_STATE in content:
        return read_rangeflow(content, path)
    if GPT2_5_STATE in content:
        return read_gpt2_5(content, path)
    raise ValueError(
        f"{path} is not a supported checkpoint: it has none of the keys model_config (gpt-lightning), "
        f"{RANGEFLOW_STATE} (RangeFlow-GPT) or {GPT2_5_STATE} (GPT-2.5). For an exported model, pass its folder."
    )


def _from_checkpoint(content: dict[str, Any], path: Path) -> GPT:
    weights = {
        key.removeprefix("model."): value for key, value in extract_weights(content, "state_dict", where=path).items()
    }
    return build_model(read_config(content["model_config"], where=path), weights, where=path)
