"""Which settings are paths, names or prompts, and which names a folder may have."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from gpt_lightning.setting_roles import SETTINGS

_PATHS = {
    *("run", "checkpoint", "log_dir", "out_dir", "runs", "mix_law", "held_out", "input", "output", "data"),
    *(key for key, setting in SETTINGS.items() if setting.is_path),
}
PROMPTS = {"prompt", "pattern"}  # the value is the text exactly as typed
_NAMES = {"name", "revision", "project", "experiment_name", "entity", "partition", "account", "qos"}  # in any section
MOST_BYTES = 200
"""Longest name of a folder in bytes. File systems allow 255; files next to the folder have longer names."""


def is_path(key: str) -> bool:
    """Whether a setting holds a path.

    Args:
        key: dotted name of the setting.
    """
    return key in _PATHS or key == "path" or key.endswith(".path")


def is_name(key: str) -> bool:
    """Whether a setting holds a name.

    Args:
        key: dotted name of the setting.
    """
    return key.rpartition(".")[2] in _NAMES


def expand_home(path: str) -> str:
    """Expand `~` at the start of a path to the home folder."""
    with suppress(RuntimeError):  # ~somebody, if there is no such user
        return str(Path(path).expanduser()) if path.startswith("~") else path
    return path


def check_names(config: Mapping[str, Any]) -> None:
    """Check the names that become folders: of a run, and of a tokenizer that is trained.

    Args:
        config: nested settings of a command.

    Raises:
        ValueError: a name is invalid, see `check_name`.
    """
    if "run_dir" in config:
        check_name("name", config["name"])
    if "train_on" in config.get("tokenizer", {}):
        check_name("tokenizer.name", config["tokenizer"]["name"])


def check_name(key: str, name: Any) -> None:
    """Check a name that becomes a folder, or, if it contains "/", nested folders.

    Args:
        key: dotted name of the setting.
        name: value of the setting.

    Raises:
        ValueError: the name is empty or not a string, leads outside the parent folder, or is too long.
    """
    if not isinstance(name, str):
        raise ValueError(f"{key} is {name!r}: it must be a string; put it in quotes in a YAML file.")
    if any("\ud800" <= character <= "\udfff" for character in name):
        raise ValueError(
            f"{key} is {name!r}: this locale cannot represent one of its characters. Set the environment variable "
            "PYTHONUTF8=1."
        )
    if {"", ".", ".."} & set(name.split("/")) or not name.isprintable():
        raise ValueError(
            f"{key} is {name!r}: it must name a folder, such as my_run or tests/my_run, without empty parts, ., .. or "
            "control characters."
        )
    for part in name.split("/"):
        if (n_bytes := len(part.encode())) > MOST_BYTES:
            raise ValueError(f"{key} is {n_bytes} bytes long: it must have at most {MOST_BYTES} bytes.")
