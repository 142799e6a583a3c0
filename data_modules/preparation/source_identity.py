"""What identifies a source: its name, its tokenizer, its folder and its licence."""

from dataclasses import dataclass
from pathlib import Path

from gpt_lightning.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class SourceIdentity:
    """What identifies a source. A corpus says which documents it has, `PreparationSettings` how they become shards."""

    name: str
    """The name by which a curriculum and `source.json` call the source."""
    tokenizer: Tokenizer
    """The tokenizer of the token ids in the shards."""
    folder: Path
    """The folder of `source.json`, and of the shards unless they are adopted. It appears when the source is complete."""
    licence: str
    """The licence of the documents, as `source.json` says it."""
