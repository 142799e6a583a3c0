"""Which settings are paths, names or prompts, and which names are valid for folders."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

_PATHS = {
    *(
        "run",
        "checkpoint",
        "log_dir",
        "out_dir",
        "runs",
        "mix_law",
        "held_out",
        "input",
        "output",
        "init_from",
        "resume",
    ),
    *("data", "data_dir", "runs_dir", "run_dir", "sweep_dir", "branch.run", "curriculum.ado.record", "tokenizer.name"),
}
PROMPTS = {"prompt", "pattern"}  # the text is taken as typed
_NAMES = {"name", "revision", "project", "experiment_name", "entity", "partition", "account", "qos"}  # in any section
MOST_BYTES = 200
"""Maximum length of a folder name in bytes. File systems allow 255, but related files have longer names."""


def is_path(key: str) -> bool:
    """Whether a setting is a path."""
    return key in _PATHS or key == "path" or key.endswith(".path")


def is_name(key: str) -> bool:
    """Whether a setting is a name."""
    return key.rpartition(".")[2] in _NAMES


def expand_home(path: str) -> str:
    """The path with `~` at its beginning expanded to the home folder."""
    with suppress(RuntimeError):  # `~user` without such a user
        return str(Path(path).expanduser()) if path.startswith("~") else path
    return path


def check_names(config: Mapping[str, Any]) -> None:
    """Check the names that become folders: the name of a run, and of a tokenizer to be trained.

    Raises:
        ValueError: a name is invalid, see `check_name`.
    """
    if "run_dir" in config:
        check_name("name", config["name"])
    if "train_on" in config.get("tokenizer", {}):
        check_name("tokenizer.name", config["tokenizer"]["name"])


def check_name(key: str, name: Any) -> None:
    """Check a name that becomes a folder, or nested folders if it has slashes.

    Raises:
        ValueError: it is empty, not a string or too long, or leads out of the parent folder.
    """
    if not isinstance(name, str):
        raise ValueError(f"{key} is {name!r}: it must be a text; where a YAML file says it, in quotes.")
    if any("\ud800" <= character <= "\udfff" for character in name):
        raise ValueError(
            f"{key} is {name!r}: this locale lacks a character of it. Start the command with PYTHONUTF8=1 before it."
        )
    if {"", ".", ".."} & set(name.split("/")) or not name.isprintable():
        raise ValueError(
            f"{key} is {name!r}: it must name a folder, as my_run or tests/my_run, without empty parts, . and .., and without "
            "control characters."
        )
    for part in name.split("/"):
        if (n_bytes := len(part.encode())) > MOST_BYTES:
            raise ValueError(f"{key} is {n_bytes} bytes long: the name of a folder may have {MOST_BYTES}.")
