"""Find the files of a dataset on the Hugging Face hub. `datasets` lists the files, which are then streamed one by one."""

import os
import re
from pathlib import Path


class HubUnreachableError(ValueError):
    """The hub, or a repository on it, does not respond or denies access."""


def find_hub_files(
    id: str, *, config: str | None, split: str, revision: str | None = None
) -> tuple[dict[str, str], str | None]:
    """List the files of one split of one configuration of a dataset.

    Args:
        id: Repository on the hub, or a local folder with the same layout.
        config: Name of the configuration in the repository; None: the repository has only one.
        split: Name of the split.
        revision: Commit, branch or tag; None: the newest commit.

    Returns:
        (name of each file in the repository -> its address, the commit to which the addresses are pinned)

    Raises:
        HubUnreachableError: The hub does not respond, or requires a login.
        ValueError: The repository does not have this configuration or split.
    """
    from datasets import load_dataset_builder  # imported here because it takes seconds
    from datasets.exceptions import DatasetsError

    try:
        builder = load_dataset_builder(id, name=config, revision=revision)
    except (OSError, DatasetsError) as error:
        raise HubUnreachableError(
            f"{id} cannot be reached on the Hugging Face hub ({' '.join(str(error).split()).rstrip('.')}). If the "
            "dataset requires a login, run: hf auth login. Without a connection, set path=… to read a local copy of "
            "its files."
        ) from error
    except ValueError as error:  # it lists the configurations, followed by an example call of `datasets`
        what = " ".join(str(error).split("Example of usage")[0].split()).rstrip(".")
        raise ValueError(f"{id}, config {config}: {what}.") from error
    except RuntimeError as error:
        raise ValueError(
            f"{id} is not read: {str(error).rstrip('.')}, and dataset scripts are not executed. Set path=… to its "
            "data files."
        ) from error
    data_files = builder.config.data_files or {}
    if split not in data_files:
        raise ValueError(f"{id} has no split {split}: its splits are {', '.join(map(str, data_files)) or 'none'}.")
    root = Path(id).resolve() if Path(id).is_dir() else None
    files, states = {}, set()
    for url in data_files[split]:
        name, state = _in_folder(url, root) if root else _in_repository(url)
        states.add(state)
        if name is None or len(states) > 1:
            raise ValueError(f"{id} lists {url}, which is not in this dataset: only its own files are read.")
        files[name] = url
    state = next(iter(states), None)
    return files, state and state.rpartition("@")[2]


def _in_folder(url: str, root: Path) -> tuple[str | None, None]:
    """Return a file's name relative to a folder, None if outside. Links are not resolved: hub caches use them."""
    place = Path(os.path.normpath(url))
    return (place.relative_to(root).as_posix() if place.is_relative_to(root) else None), None


def _in_repository(url: str) -> tuple[str | None, str | None]:
    """Return a file's name in a hub repository, None if it is in none, and the repository with its commit."""
    pinned = re.fullmatch(r"hf://datasets/(.+?@[0-9a-f]{40})/(.+)", url)
    return (pinned[2], pinned[1]) if pinned else (None, None)
