"""Is a prepared source what its source.json says?"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from data_modules.preparation.split import SPLITS


def damages(folder: Path, information: dict[str, Any]) -> list[str]:
    """What is wrong with the shards of a source, in a sentence each; reads every byte of them."""
    found = []
    for split in SPLITS:
        for number, shard in enumerate(information["splits"][split]["shards"]):
            for name, sha256 in shard["sha256"].items():
                path = Path(shard["file"]) if "file" in shard else folder / split / name
                if not path.is_file():
                    found.append(f"{path} is missing")
                elif _sha256(path, shard) != sha256:
                    found.append(f"{path} is not what it was when it was made (shard {number} of {split})")
    return found


def _sha256(path: Path, shard: dict[str, Any]) -> str:
    if "file" in shard:  # made by others: only the ids count
        ids = np.fromfile(path, shard["dtype"], count=shard["tokens"], offset=shard["offset"])
        return hashlib.sha256(ids.tobytes()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
