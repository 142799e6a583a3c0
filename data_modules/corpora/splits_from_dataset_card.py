"""Read a dataset's card (README.md): which files belong to which split of which configuration."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from fsspec.utils import glob_translate

from gpt_lightning.bounded_yaml import check_yaml_bounds


def read_card(folder: Path) -> dict[str, dict[str, Any]] | None:
    """Read the configurations that a folder's card describes.

    Returns:
        Name of a configuration -> the fields of its entry; None if there is no card.

    Raises:
        ValueError: The card cannot be read.
    """
    path = folder / "README.md"
    if not path.is_file():
        return None
    header = re.match(r"\ufeff?---\s*\n(.*?)\n---\s*$", path.read_text("utf-8", "replace"), re.DOTALL | re.MULTILINE)
    if not header:
        return {}
    try:
        check_yaml_bounds(header[1])
        content = yaml.safe_load(header[1])
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(
            f"{path}: the text between its two --- lines is not valid YAML ({' '.join(str(error).split())})."
        ) from error
    configs = content.get("configs") if isinstance(content, Mapping) else None
    if not isinstance(configs, list):
        return {}
    return {str(c.get("config_name", "default")): dict(c) for c in configs if isinstance(c, Mapping)}


def choose_config(card: Mapping[str, dict[str, Any]], name: str | None) -> dict[str, Any]:
    """Return the configuration with this name; for None, the only one or the default one.

    Raises:
        ValueError: There is no such configuration, or there are several and none is the default.
    """
    if name is None and len(card) > 1:
        by_default = [config for key, config in card.items() if config.get("default") or key == "default"]
        if not by_default:
            raise ValueError(f"is a dataset with several configurations ({', '.join(card)}): choose one of them")
        return by_default[0]
    if name is not None and name not in card:
        raise ValueError(f"has no configuration {name}: its README.md lists {', '.join(card) or 'none'}")
    return card[name] if name is not None else next(iter(card.values()))


def files_by_split(config: Mapping[str, Any], names: Sequence[str]) -> dict[str, list[str]] | None:
    """Assign files to the splits of a configuration.

    Args:
        config: The configuration, from the card.
        names: Files in the card's folder, relative to this folder.

    Returns:
        Split -> its files; None if the configuration does not list files.

    Raises:
        ValueError: `data_files` of the configuration is malformed.
    """
    data_files = config.get("data_files")
    if data_files is None:
        return None
    entries = data_files if isinstance(data_files, list) else [data_files]
    if all(isinstance(entry, str) for entry in entries):
        entries = [{"split": "train", "path": entries}]
    splits: dict[str, list[str]] = {}
    for entry in entries:
        if not isinstance(entry, Mapping) or not {"split", "path"} <= set(entry):
            raise ValueError("has a README.md whose data_files is malformed: it must be a list of {split, path}")
        patterns = entry["path"] if isinstance(entry["path"], list) else [entry["path"]]
        within = f"{config['data_dir']}/" if isinstance(config.get("data_dir"), str) else ""
        matched = [name for pattern in patterns for name in names if _matches(name, within + str(pattern))]
        splits.setdefault(str(entry["split"]), []).extend(dict.fromkeys(matched))
    return splits


def _matches(name: str, pattern: str) -> bool:
    pattern = pattern.removeprefix("./")
    return name == pattern or re.fullmatch(glob_translate(pattern), name) is not None
