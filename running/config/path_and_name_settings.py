"""Which settings are paths, names and prompts; and what a name may be of which a folder is made."""

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
PROMPTS = {"prompt", "pattern"}  # whatever is typed is the text
_NAMES = {"name", "revision", "project", "experiment_name", "entity", "partition", "account", "qos"}  # in any section
MOST_BYTES = 200
"""In the name of a folder: file systems take 255, and what is made beside it has a longer name."""


def is_path(key: str) -> bool:
    """Whether a setting of a verb says where something lies."""
    return key in _PATHS or key == "path" or key.endswith(".path")


def is_name(key: str) -> bool:
    """Whether a setting of a verb is what something is called."""
    return key.rpartition(".")[2] in _NAMES


def expand_home(path: str) -> str:
    """The path, where `~` at its beginning is the home folder."""
    with suppress(RuntimeError):  # of ~somebody, where there is no such user
        return str(Path(path).expanduser()) if path.startswith("~") else path
    return path


def check_names(config: Mapping[str, Any]) -> None:
    """Check the names of a verb's config of which folders are made, that of a run and of a tokenizer which is trained.

    Raises:
        ValueError: as `check_name`.
    """
    if "run_dir" in config:
        check_name("name", config["name"])
    if "train_on" in config.get("tokenizer", {}):
        check_name("tokenizer.name", config["tokenizer"]["name"])


def check_name(key: str, name: Any) -> None:
    """Check a name of which a folder is made, or several in each other, below another folder.

    Raises:
        ValueError: it is empty or no text, leads elsewhere, or is too long.
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
