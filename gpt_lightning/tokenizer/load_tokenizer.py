"""Load any supported tokenizer."""

from pathlib import Path

from gpt_lightning.tokenizer.base import Tokenizer
from gpt_lightning.tokenizer.trained_bpe import TrainedBPE


def load_tokenizer(name_or_path: str | Path) -> Tokenizer:
    """Load a tokenizer.

    Args:
        name_or_path: `gpt2`, `gpt2_chatml`, or the path of a `tokenizer.json` or its folder.

    Raises:
        ValueError: The tokenizer does not exist, or the file is not a byte-level BPE.
    """
    if name_or_path in ("gpt2", "gpt2_chatml"):
        from gpt_lightning.tokenizer.gpt2 import GPT2Tokenizer  # tiktoken is slow to import

        return GPT2Tokenizer(chat=name_or_path == "gpt2_chatml")
    path = Path(name_or_path)
    if path.is_dir():
        path = path / "tokenizer.json"
    if not path.is_file():
        raise ValueError(
            f"tokenizer '{name_or_path}' does not exist: it must be gpt2, gpt2_chatml, or the path of a tokenizer.json."
        )
    return TrainedBPE(path)
