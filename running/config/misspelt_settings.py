"""The setting that a misspelt name means, and the file with the misspelling."""

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_SAME_MEANING = 0.8  # similarity of a misspelt key to the missing key


def nearest_key(key: str, keys: Iterable[str]) -> str | None:
    """The key most similar to `key`; None: no key is similar.

    A dotted key is compared part by part, so that `sources.local.splitt` cannot mean a setting of another source.

    Args:
        key: dotted name that does not exist.
        keys: dotted names that exist.
    """
    others = [other for other in keys if other != key]
    if "." not in key:
        return next(iter(difflib.get_close_matches(key, others, n=1)), None)
    paths, found = [other.split(".") for other in others], list[str]()
    for n, part in enumerate(key.split(".")):
        children = sorted({path[n] for path in paths if len(path) > n and path[:n] == found})
        near = [part] if part in children else difflib.get_close_matches(part, children, n=1)
        if not near:
            return None
        found += near
    return ".".join(found)


def misspelling(config: Mapping[str, Any], folders: Iterable[Path]) -> str | None:
    """The message about a key that is a misspelling of a key without a value; None: there is no such key.

    Args:
        config: dotted key -> value of the composed config; "???": no value.
        folders: the user's config folders. The message names the file if only one file contains the key.
    """
    for missing in (key for key, value in config.items() if value == "???"):
        parent, dot, name = missing.rpartition(".")
        parts = [key.rpartition(".") for key in config if key != missing]
        siblings = [sibling for of, _, sibling in parts if of == parent]
        if near := difflib.get_close_matches(name, siblings, n=1, cutoff=_SAME_MEANING):
            pattern = re.compile(rf"(^|[\s{{,]){re.escape(near[0])}\s*:", flags=re.MULTILINE)
            files = {file for folder in folders for depth in ("*.yaml", "*/*.yaml") for file in folder.glob(depth)}
            found = [file for file in files if pattern.search(file.read_text("utf-8", errors="replace"))]
            place = f"{found[0]}: " if len(found) == 1 else ""
            return f"{place}there is no setting {parent}{dot}{near[0]}: did you mean {missing}?"
    return None
