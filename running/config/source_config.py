"""Typed settings of a source: conf/source/<name>.yaml and, for prepare.py, the command line."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gpt_lightning.hub_dataset_config import HubDataset
from running.config import compose
from running.config.settings_parser import PositiveNumber, check_keys, parse


@dataclass(frozen=True, kw_only=True)
class ExpectedSize:
    """Size of a source with GPT-2's tokenizer. plan.py uses this size until the source is prepared."""

    tokens: PositiveNumber | None = None
    """Number of tokens; None: unknown."""
    loss_bearing: PositiveNumber = 1.0
    """Share of the tokens that bear loss, above 0 and at most 1."""

    def __post_init__(self) -> None:
        if self.loss_bearing > 1:
            raise ValueError(f"expected.loss_bearing is {self.loss_bearing}: it must be above 0 and at most 1.")


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """A corpus. The documents come from `corpus`, from files at `path`, or, without either, from the hub."""

    hub: HubDataset | None = None
    """The dataset on the Hugging Face hub; None: the files must be at `path`."""
    path: str | None = None
    """A file, a folder or a pattern to read instead of the hub; None: read from the hub."""
    fields: dict[str, str | None] | None = None
    """Field in our terms (text; or instruction, input, output; or messages) -> name of the field in the records; null:
    the records do not have this field."""
    corpus: dict[str, Any] | None = None
    """`_target_` and arguments of a source reader, which replaces `hub`, `path` and `fields`; None: read files."""
    licence: str
    """Licence of the texts, as source.json records it."""
    limit_tokens: PositiveNumber | None
    """Use documents up to this total number of tokens, training and validation together; None: all documents."""
    val_fraction: float
    """Share used for validation, above 0 and below 1: of the documents, or with `split: tail` of each text's
    characters."""
    split: Literal["hash", "tail"]
    """`hash`: assign whole documents to validation by their hash; `tail`: the end of each text, for a few long texts."""
    expected: ExpectedSize = field(default_factory=ExpectedSize)
    """Size of the source before it is prepared, for plan.py."""
    fallback: str | None = None
    """Source to use if the hub does not provide this source; null: an error."""


def parse_source(name: str, content: Mapping[str, Any]) -> SourceConfig:
    """The config of a source.

    Args:
        name: name of the source.
        content: settings of the source, nested.

    Raises:
        ValueError: a setting is unknown, missing or wrong.
    """
    section = f"sources.{name}"
    if not isinstance(content, Mapping):
        raise ValueError(f"{section} is {content!r}: it must be a group of settings.")
    check_keys(SourceConfig, content, name=section)
    origin = () if "corpus" in content else ("hub", "fields")
    for needed in (*origin, "licence", "val_fraction", "limit_tokens", "split"):
        if needed not in content:
            raise ValueError(f"{section}.{needed} has no value: conf/source has examples to copy.")
    limit = None if content["limit_tokens"] == "all" else content["limit_tokens"]
    return parse(SourceConfig, {**content, "limit_tokens": limit}, name=section)


def parse_composed_source(name: str, content: Mapping[str, Any]) -> SourceConfig:
    """The config of a source that Hydra composed.

    Args:
        name: name of the source.
        content: settings of the source, nested.

    Raises:
        ValueError: as for `parse_source`; the message names the source's file if it is in the user's config folder.
    """
    try:
        return parse_source(name, content)
    except ValueError as error:
        files = [folder / "source" / f"{name}.yaml" for folder in compose.user_folders().values()]
        own = next((file for file in files if file.is_file()), None)
        raise ValueError(f"{own}: {error}" if own else str(error)) from error


def read_source(name: str) -> SourceConfig:
    """The config in conf/source/<name>.yaml or the user's config folder, without settings of the command line.

    Args:
        name: name of the source.

    Raises:
        ValueError: a setting is unknown, missing or wrong.
    """
    path = compose.choice_path("source", name)
    try:
        return parse_source(name, compose.read_choice("source", name))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
