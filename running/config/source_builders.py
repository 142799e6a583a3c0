"""Build corpora and preparation settings from conf/source/<name>.yaml and the command line."""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from data_modules.corpora import (
    Corpus,
    FileCorpus,
    FunctionCorpus,
    HubUnreachableError,
    SourceReader,
    find_hub_files,
    find_local_files,
)
from data_modules.preparation import PreparationSettings
from gpt_lightning.console import say
from running.config import allowed_targets, compose
from running.config.command_configs import PrepareConfig
from running.config.own_imports import digests_of_imports
from running.config.registered_targets import REGISTERED_TARGETS


def build_preparation_settings(config: PrepareConfig, source: Mapping[str, Any]) -> PreparationSettings:
    """How the documents of a source become shards.

    Args:
        config: settings of prepare.py.
        source: content of conf/source/<name>.yaml.

    Raises:
        ValueError: a setting is out of range.
    """
    limit = source["limit_tokens"] if config.limit_tokens is None else config.limit_tokens
    if limit in (None, "all"):
        limit = None
    elif isinstance(limit, bool) or not isinstance(limit, (int, float)) or not 1 <= limit < math.inf:
        raise ValueError(f"limit_tokens is {limit}: it must be a number of tokens, 1 or more, or all.")
    return PreparationSettings(
        val_fraction=source["val_fraction"],
        split=source["split"],
        limit_tokens=None if limit is None else int(limit),
        on_bad_record=config.on_bad_record,
        deduplicate=config.deduplicate,
    )


def open_corpus(
    config: PrepareConfig, name: str, source: Mapping[str, Any], *, begun_in: Path | None = None
) -> tuple[Corpus, Mapping[str, Any]]:
    """The documents of a source, from a source reader, `path` or the hub; and the source's effective config.

    Args:
        config: settings of prepare.py.
        name: name of the source's config.
        source: content of that config.
        begun_in: folder of an unfinished preparation. Its commit of the hub's repository is used again.

    Returns:
        The corpus, and `source` or the config of its fallback.

    Raises:
        ValueError: there is nothing to read, or the hub is unreachable and the source has no `fallback`.
    """
    if "corpus" in source:
        if source["path"] is not None:
            target = source["corpus"].get("_target_")
            raise ValueError(f"source {name} is read by {target} and has no path=: use source=local to read files.")
        return _corpus_of_reader(source["corpus"]), source
    if source["path"] is not None:
        return path_corpus(config, name, source, tell=print), source
    if source["hub"] is None:
        raise ValueError(f"source {name} needs path=…: a file, a folder or a pattern.")
    try:
        urls, commit = find_hub_files(**source["hub"], revision=config.revision or _begun_revision(begun_in))
    except HubUnreachableError as error:
        if "fallback" not in source:
            raise
        say(f"{error}\n{name}: using the fallback {source['fallback']} instead.")
        instead = compose.read_choice("source", source["fallback"]) | {"instead_of": source["hub"]}
        return open_corpus(config, name, instead, begun_in=begun_in)
    origin = source["hub"] | {"revision": commit}
    if "instead_of" in source:
        origin |= {"instead_of": source["instead_of"]}
    return _file_corpus(config, name, source, urls, origin), source


def _corpus_of_reader(node: Mapping[str, Any]) -> Corpus:
    read = allowed_targets.resolve_corpus(node)
    is_own = node["_target_"] in REGISTERED_TARGETS["source reader"]
    return FunctionCorpus(SourceReader(read, node["_target_"]) if is_own else read, origin=origin_of_reader(node))


def origin_of_reader(node: Mapping[str, Any]) -> dict[str, Any]:
    """What source.json records about `corpus` in a source's config; for a registered reader, with a hash of its module.

    Args:
        node: `_target_` and keyword arguments.
    """
    own = REGISTERED_TARGETS["source reader"].get(node["_target_"])
    if own is None:
        return dict(node)
    return {**node, "reader_digest": digests_of_imports([own.__module__])[own.__module__]}


def path_corpus(
    config: PrepareConfig, key: str, source: Mapping[str, Any], *, tell: Callable[[str], object] = str
) -> Corpus:
    """The corpus of the files at a source's path.

    In a copy of a whole repository, only the source's config and split are read.

    Args:
        config: settings of prepare.py.
        key: name of the source's config.
        source: content of that config.
        tell: called with one line that counts the skipped files, if any.

    Raises:
        ValueError: there are no files.
    """
    path = str(source["path"])
    return _file_corpus(config, key, source, find_local_files(path, hub=source["hub"], tell=tell), {"path": path})


def is_commit_hash(revision: str | None) -> bool:
    """Whether a revision is a commit hash, which always names the same state of a repository.

    Branches and tags can move.

    Args:
        revision: revision of a repository on the hub; None: the default branch.
    """
    return revision is not None and re.fullmatch("[0-9a-f]{40}", revision) is not None


def training_sources(config: PrepareConfig, names: Iterable[str]) -> dict[str, Mapping[str, Any]]:
    """The configs of the sources that a tokenizer is trained on: from the command line, else from conf/source.

    Args:
        config: settings of prepare.py.
        names: names of the sources.

    Raises:
        ValueError: a source does not exist.
    """
    known = compose.group_choices("source")
    if not set(names) <= {*known, *config.sources}:
        raise ValueError(
            f"tokenizer.train_on={names}: it must be a list of sources; conf/source has {', '.join(known)}."
        )
    return {
        name: config.sources_with_path.get(name) or {"path": None, **compose.read_choice("source", name)}
        for name in names
    }


def _file_corpus(
    config: PrepareConfig, key: str, source: Mapping[str, Any], urls: Mapping[str, str], origin: Mapping[str, Any]
) -> Corpus:
    chosen = dict(list(urls.items())[: config.limit_files])
    setting, limit = f"sources.{key}.fields", config.max_record_mb
    return FileCorpus(chosen, fields=source["fields"], origin=origin, max_record_mb=limit, setting=setting)


def _begun_revision(work: Path | None) -> str | None:
    for record in work.glob("*/part.json") if work else []:
        revision: str | None = json.loads(record.read_text(encoding="utf-8"))["request"]["origin"].get("revision")
        return revision
    return None
