"""Open the records of an evaluation task, local or on the hub, and describe the origin of the records."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data_modules.corpora.file_corpus import FileRecords
from data_modules.corpora.find_hub_files import find_hub_files
from data_modules.corpora.find_local_files import find_local_files
from gpt_lightning.hub_dataset_config import HubDataset

_LONGEST_MB = 32


def open_task_records(
    path: str | None, hub: HubDataset | None, *, tell: Callable[[str], object] = str
) -> tuple[FileRecords, dict[str, Any]]:
    """Open the records of a task.

    Args:
        path: A file, a folder or a pattern; None: read from the hub.
        hub: The dataset on the hub; a folder at `path` may be a copy of it.
        tell: Called with one line that counts the skipped files, if there are any.

    Returns:
        (the records, their origin as written to evaluation.json)

    Raises:
        HubUnreachableError: The hub does not respond.
        ValueError: The files do not exist, or neither path nor hub is given.
    """
    if path is not None:
        config, split = (hub.config, hub.split) if hub else (None, None)
        urls = find_local_files(path, config=config, split=split, tell=tell)
        digest = hashlib.sha256()
        for url in urls.values():
            with Path(url).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        origin: dict[str, Any] = {"files": list(urls), "sha256": digest.hexdigest()}
    elif hub is not None:
        urls, commit = find_hub_files(**asdict(hub))
        origin = {**asdict(hub), "revision": commit}
    else:
        raise ValueError("path is null: it must be a file, a folder or a pattern.")
    return FileRecords(urls, fields=None, max_record_mb=_LONGEST_MB), origin
