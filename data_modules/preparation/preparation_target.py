"""The identity of a source: name, tokenizer, folder and licence."""

from dataclasses import dataclass
from pathlib import Path

from gpt_lightning.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class PreparationTarget:
    """The identity of a source. A corpus provides the documents; `PreparationSettings` define how documents become
    shards.
    """

    name: str
    """The source's name in curricula and in source.json."""
    tokenizer: Tokenizer
    """The tokenizer for the ids in the shards."""
    folder: Path
    """Folder of source.json, and of the shards unless another project made them. The folder appears when it is
    complete.
    """
    licence: str
    """Licence of the documents, as written to source.json."""
