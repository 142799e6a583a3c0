"""Typed settings of the tokenizer of a run and of prepared sources."""

from dataclasses import dataclass
from typing import Any

from running.config.settings_parser import Count, PositiveNumber


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """The tokenizer, see conf/tokenizer. If `train_on` is set, `prepare.py` trains the tokenizer before it prepares the
    sources."""

    name: str
    """Name of the tokenizer's folder in data_dir, or gpt2, gpt2_chatml, or the path of a tokenizer.json."""
    model_vocab_size: Count | None = None
    """Rows of the model's embedding, at least the number of ids."""
    train_on: list[str] | None = None
    """Sources to train the tokenizer on; null: the tokenizer is not trained here."""
    train_mb: PositiveNumber | None = None
    """Megabytes from the beginning of each source's training documents; null: all."""

    def __post_init__(self) -> None:
        names: Any = self.train_on
        if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise ValueError(f"tokenizer.train_on is {names!r}: it must be a list of sources, or null.")
        if names is not None and self.model_vocab_size is None:
            raise ValueError("tokenizer.model_vocab_size is null: it must be the number of ids to train.")
