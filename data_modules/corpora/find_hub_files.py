"""Which files on the Hugging Face hub a source is read from: `datasets` knows; they are then streamed one by one."""

import os
import re
from pathlib import Path


class HubUnreachableError(ValueError):
    """The hub, or a repository on it, does not answer or does not let us in."""


def find_hub_files(
    id: str, *, config: str | None, split: str, revision: str | None = None
) -> tuple[dict[str, str], str | None]:
    """The files of one split of one configuration of a dataset.

    Args:
        id: of the repository on the hub; or a folder that is laid out like one.
        config: as the repository names it; None: it has but one.
        revision: a commit, branch or tag; None: the newest commit.

    Returns:
        name of each file in the repository -> its address; and the commit that the addresses are pinned to.

    Raises:
        HubUnreachableError: it does not answer, or asks for a login.
        ValueError: the repository has no such configuration or split.
    """
    from datasets import load_dataset_builder  # seconds of import, wanted by this function alone
    from datasets.exceptions import DatasetsError

    try:
        builder = load_dataset_builder(id, name=config, revision=revision)
    except (OSError, DatasetsError) as error:
        raise HubUnreachableError(
            f"{id} cannot be reached on the Hugging Face hub ({' '.join(str(error).split()).rstrip('.')}). Of a dataset that "
            "asks for a login: hf auth login. Without a connection: path=… reads a copy of its files."
        ) from error
    except ValueError as error:  # it says which configurations there are, and how its own function would be called
        what = " ".join(str(error).split("Example of usage")[0].split()).rstrip(".")
        raise ValueError(f"{id}, config {config}: {what}.") from error
    except RuntimeError as error:
        raise ValueError(
            f"{id} is not read: {str(error).rstrip('.')}, and no program of a repository is run. Name its data files with path=…."
        ) from error
    data_files = builder.config.data_files or {}
    if split not in data_files:
        raise ValueError(f"{id} has no split {split}; it has {', '.join(map(str, data_files)) or 'none'}.")
    root = Path(id).resolve() if Path(id).is_dir() else None
    files, states = {}, set()
    for url in data_files[split]:
        name, state = _in_folder(url, root) if root else _in_repository(url)
        states.add(state)
        if name is None or len(states) > 1:
            raise ValueError(f"{id} names {url}, which lies outside of it: nothing but its own files is read.")
        files[name] = url
    state = next(iter(states), None)
    return files, state and state.rpartition("@")[2]


def _in_folder(url: str, root: Path) -> tuple[str | None, None]:
    """The name of a file below a folder, None if it is not; symbolic links stay, as a cache of the hub is made of them."""
    place = Path(os.path.normpath(url))
    return (place.relative_to(root).as_posix() if place.is_relative_to(root) else None), None


def _in_repository(url: str) -> tuple[str | None, str | None]:
    """The name of a file in a repository of the hub, None if it is not, and the repository with its commit."""
    pinned = re.fullmatch(r"hf://datasets/(.+?@[0-9a-f]{40})/(.+)", url)
    return (pinned[2], pinned[1]) if pinned else (None, None)
