"""Which files on the Hugging Face hub a source is read from: `datasets` knows; they are then streamed one by one."""

import re
from pathlib import Path


class HubUnreachable(ValueError):
    """The hub, or a repository on it, does not answer or does not let us in."""


def hub_files(
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
        HubUnreachable: it does not answer, or asks for a login.
        ValueError: the repository has no such configuration or split.
    """
    from datasets import load_dataset_builder  # seconds of import, wanted by this function alone
    from datasets.exceptions import DatasetsError

    try:
        builder = load_dataset_builder(id, name=config, revision=revision)
    except (OSError, DatasetsError) as error:
        raise HubUnreachable(
            f"{id} cannot be reached on the Hugging Face hub ({' '.join(str(error).split()).rstrip('.')}). Of a dataset that "
            "asks for a login: hf auth login. Without a connection: path=… reads a copy of its files."
        ) from error
    except ValueError as error:  # it says which configurations there are, and how its own function would be called
        what = " ".join(str(error).split("Example of usage")[0].split()).rstrip(".")
        raise ValueError(f"{id}, config {config}: {what}.") from error
    data_files = builder.config.data_files or {}
    if split not in data_files:
        raise ValueError(f"{id} has no split {split}; it has {', '.join(map(str, data_files)) or 'none'}.")
    root = f"{Path(id).resolve()}/" if Path(id).is_dir() else None
    files, commits = {}, set()
    for url in data_files[split]:
        pinned = re.fullmatch(r"hf://datasets/.+?@([0-9a-f]{40})/(.+)", url)
        if pinned:
            commits.add(pinned[1])
        files[pinned[2] if pinned else url.removeprefix(root or "")] = url
    assert len(commits) == (0 if root else 1), f"one commit was asked for, and {commits} were given"
    return files, commits.pop() if commits else None
