"""What conf/source/<name>.yaml and the command line say of sources, made into corpora and recipes."""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from data_modules.corpora import (
    Corpus,
    DocumentCorpus,
    FileCorpus,
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
    """How a source's documents become shards.

    Raises:
        ValueError: a setting is out of its range.
    """
    limit = source["limit_tokens"] if config.limit_tokens is None else config.limit_tokens
    if limit in (None, "all"):
        limit = None
    elif isinstance(limit, bool) or not isinstance(limit, (int, float)) or not 1 <= limit < math.inf:
        raise ValueError(f"limit_tokens is {limit}: it must be a number of tokens, or all.")
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
    """Where a source's documents come from, a source reader, path= or the hub; and the config that holds for them.

    Args:
        name: of the source's config.
        begun_in: what was begun there with a commit of the hub goes on with it.

    Raises:
        ValueError: there is nothing to be read, or the hub does not answer and no `fallback` does.
    """
    if "corpus" in source:
        if source["path"] is not None:
            target = source["corpus"].get("_target_")
            raise ValueError(f"source {name} is read by {target}: path= is for other sources, such as source=local.")
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
        say(f"{error}\n{name}: {source['fallback']} stands in for it.")
        instead = compose.read_choice("source", source["fallback"]) | {"instead_of": source["hub"]}
        return open_corpus(config, name, instead, begun_in=begun_in)
    origin = source["hub"] | {"revision": commit}
    if "instead_of" in source:
        origin |= {"instead_of": source["instead_of"]}
    return _file_corpus(config, name, source, urls, origin), source


def _corpus_of_reader(node: Mapping[str, Any]) -> Corpus:
    read = allowed_targets.resolve_corpus(node)
    is_own = node["_target_"] in REGISTERED_TARGETS["source reader"]
    return DocumentCorpus(SourceReader(read, node["_target_"]) if is_own else read, origin=origin_of_reader(node))


def origin_of_reader(node: Mapping[str, Any]) -> dict[str, Any]:
    """What source.json records of `corpus` in a source's config; of a reader of the user's own with the digest of its module."""
    own = REGISTERED_TARGETS["source reader"].get(node["_target_"])
    if own is None:
        return dict(node)
    return {**node, "reader_digest": digests_of_imports([own.__module__])[own.__module__]}


def path_corpus(
    config: PrepareConfig, key: str, source: Mapping[str, Any], *, tell: Callable[[str], object] = str
) -> Corpus:
    """The corpus of the files at a source's path; of a copy of a whole repository, of its configuration and split.

    Args:
        key: the name of the source's config.
        tell: called with one line that counts the files which were passed over, if any were.

    Raises:
        ValueError: there are none.
    """
    path = str(source["path"])
    return _file_corpus(config, key, source, find_local_files(path, hub=source["hub"], tell=tell), {"path": path})


def is_commit_hash(revision: str | None) -> bool:
    """Whether a revision can name one state of a repository only; branches and tags move."""
    return revision is not None and re.fullmatch("[0-9a-f]{40}", revision) is not None


def training_sources(config: PrepareConfig, names: Iterable[str]) -> dict[str, Mapping[str, Any]]:
    """The configs of the sources that a tokenizer is trained on: those of the command line, or those that ship.

    Raises:
        ValueError: one of them does not exist.
    """
    known = compose.group_choices("source")
    if isinstance(names, str) or not set(names) <= {*known, *config.sources}:
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
