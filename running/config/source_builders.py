"""Build corpora and preparation settings from conf/source/<name>.yaml and the command line."""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data_modules.corpora import (
    Corpus,
    CustomReaderCorpus,
    FileCorpus,
    FunctionCorpus,
    HubUnreachableError,
    find_hub_files,
    find_local_files,
)
from data_modules.preparation import PreparationSettings
from gpt_lightning.console import say
from gpt_lightning.hub_dataset_config import HubDataset
from running.config import allowed_targets, compose
from running.config.command_configs import PrepareConfig
from running.config.own_imports import digests_of_imports
from running.config.registered_targets import REGISTERED_TARGETS
from running.config.renamed_targets import target_of
from running.config.source_config import SourceConfig, read_source


def build_preparation_settings(config: PrepareConfig, source: SourceConfig) -> PreparationSettings:
    """How the documents of a source become shards.

    Args:
        config: settings of prepare.py.
        source: config of the source.

    Raises:
        ValueError: a setting is out of range.
    """
    limit = source.limit_tokens if config.limit_tokens is None else config.limit_tokens
    if limit in (None, "all"):
        limit = None
    elif isinstance(limit, bool) or not isinstance(limit, (int, float)) or not 1 <= limit < math.inf:
        raise ValueError(f"limit_tokens is {limit}: it must be a number of tokens, 1 or more, or all.")
    return PreparationSettings(
        val_fraction=source.val_fraction,
        split=source.split,
        limit_tokens=None if limit is None else int(limit),
        on_bad_record=config.on_bad_record,
        deduplicate=config.deduplicate,
    )


def open_corpus(
    config: PrepareConfig,
    name: str,
    source: SourceConfig,
    *,
    begun_in: Path | None = None,
    instead_of: HubDataset | None = None,
) -> tuple[Corpus, SourceConfig]:
    """The documents of a source, from a source reader, `path` or the hub; and the source's effective config.

    Args:
        config: settings of prepare.py.
        name: name of the source's config.
        source: config of the source.
        begun_in: folder of an unfinished preparation. The commit of the hub's repository that it started with is used
            again.
        instead_of: the dataset that the hub does not provide, if `source` is its fallback.

    Returns:
        The corpus, and `source` or the config of the source's fallback.

    Raises:
        ValueError: there is nothing to read, or the hub is unreachable and the source has no `fallback`.
    """
    if source.corpus is not None:
        if source.path is not None:
            target = target_of(source.corpus)
            raise ValueError(f"source {name} is read by {target} and has no path=: use source=local to read files.")
        return _corpus_of_reader(source.corpus), source
    if source.path is not None:
        return path_corpus(config, name, source, tell=print), source
    if source.hub is None:
        raise ValueError(f"source {name} needs path=…: a file, a folder or a pattern.")
    hub = asdict(source.hub)
    try:
        urls, commit = find_hub_files(**hub, revision=config.revision or _begun_revision(begun_in))
    except HubUnreachableError as error:
        if source.fallback is None:
            raise
        say(f"{error}\n{name}: using the fallback {source.fallback} instead.")
        return open_corpus(config, name, read_source(source.fallback), begun_in=begun_in, instead_of=source.hub)
    origin = hub | {"revision": commit} | ({"instead_of": asdict(instead_of)} if instead_of else {})
    return _file_corpus(config, name, source, urls, origin), source


def _corpus_of_reader(node: Mapping[str, Any]) -> Corpus:
    read, target = allowed_targets.resolve_corpus(node), target_of(node)
    is_own = target in REGISTERED_TARGETS["source reader"]
    return FunctionCorpus(CustomReaderCorpus(read, target) if is_own else read, origin=origin_of_reader(node))


def origin_of_reader(node: Mapping[str, Any]) -> dict[str, Any]:
    """What source.json records about `corpus` in a source's config; for a registered reader, with a hash of the
    reader's module.

    Args:
        node: `_target_` and keyword arguments.
    """
    own = REGISTERED_TARGETS["source reader"].get(target_of(node))
    if own is None:
        return dict(node)
    return {**node, "reader_digest": digests_of_imports([own.__module__])[own.__module__]}


def path_corpus(
    config: PrepareConfig, key: str, source: SourceConfig, *, tell: Callable[[str], object] = str
) -> Corpus:
    """The corpus of the files at a source's path.

    In a copy of a whole repository, only the source's config and split are read.

    Args:
        config: settings of prepare.py.
        key: name of the source's config.
        source: config of the source, with a path.
        tell: called with one line that counts the skipped files, if any.

    Raises:
        ValueError: there are no files.
    """
    assert source.path is not None
    hub, origin = source.hub, {"path": source.path}
    files = (
        find_local_files(source.path, config=hub.config, split=hub.split, tell=tell)
        if hub
        else find_local_files(source.path, tell=tell)
    )
    return _file_corpus(config, key, source, files, origin)


def is_commit_hash(revision: str | None) -> bool:
    """Whether a revision is a commit hash, which always names the same state of a repository.

    Branches and tags can move.

    Args:
        revision: revision of a repository on the hub; None: the default branch.
    """
    return revision is not None and re.fullmatch("[0-9a-f]{40}", revision) is not None


def training_sources(config: PrepareConfig, names: Iterable[str]) -> dict[str, SourceConfig]:
    """The configs of the sources that a tokenizer is trained on: from the command line, else from conf/source.

    Args:
        config: settings of prepare.py.
        names: names of the sources.

    Raises:
        ValueError: a source does not exist.
    """
    known = compose.group_choices("source")
    if not set(names) <= {*known, *config.sources}:
        raise ValueError(f"tokenizer.train_on={names}: it must be a list of sources; {compose.list_choices('source')}.")
    return {name: config.sources_with_path.get(name) or read_source(name) for name in names}


def _file_corpus(
    config: PrepareConfig, key: str, source: SourceConfig, urls: Mapping[str, str], origin: Mapping[str, Any]
) -> Corpus:
    chosen = dict(list(urls.items())[: config.limit_files])
    setting, limit = f"sources.{key}.fields", config.max_record_mb
    return FileCorpus(chosen, fields=source.fields or {}, origin=origin, max_record_mb=limit, setting=setting)


def _begun_revision(work: Path | None) -> str | None:
    for record in work.glob("*/part.json") if work else []:
        revision: str | None = json.loads(record.read_text(encoding="utf-8"))["request"]["origin"].get("revision")
        return revision
    return None
