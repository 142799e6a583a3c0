"""What a prepared source is, whatever it is made of."""

from dataclasses import dataclass
from pathlib import Path

from gpt_lightning.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class SourceIdentity:
    """What `source.json` calls a source, where the source lies, and whose ids it holds."""

    name: str
    """The source's name, as a curriculum says it."""
    tokenizer: Tokenizer
    """Makes the ids of the source's documents, or made those of shards that are adopted."""
    folder: Path
    """Holds `source.json`, and the shards of a source that is prepared. It appears when the source is complete."""
    licence: str
    """Under which the documents may be used."""
