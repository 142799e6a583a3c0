"""The records of a task, here or on the hub, and what they were: for whoever asks how a figure was measured."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from data_modules.corpora.file_corpus import RecordFiles
from data_modules.corpora.find_hub_files import find_hub_files
from data_modules.corpora.find_local_files import find_local_files

_LONGEST_MB = 32


def open_task_records(
    path: str | None, hub: Mapping[str, Any] | None, *, tell: Callable[[str], object] = str
) -> tuple[RecordFiles, dict[str, Any]]:
    """Records in files, and where they come from.

    Args:
        path: a file, a folder or a pattern; None: the hub.
        hub: id, config and split of a dataset there; a folder may be a copy of it.
        tell: called with one line that counts the files which were passed over, if any were.

    Raises:
        HubUnreachableError: it does not answer.
        ValueError: there are no such files, or neither is given.
    """
    if path is not None:
        urls = find_local_files(path, hub=hub, split=None, tell=tell)
        digest = hashlib.sha256()
        for url in urls.values():
            with Path(url).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        origin: dict[str, Any] = {"files": list(urls), "sha256": digest.hexdigest()}
    elif hub is not None:
        urls, commit = find_hub_files(**hub)
        origin = {**hub, "revision": commit}
    else:
        raise ValueError("there is nothing to read: name a file, a folder or a pattern with path=….")
    return RecordFiles(urls, fields=None, max_record_mb=_LONGEST_MB), origin
