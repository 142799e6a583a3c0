"""One door to every tokenizer."""

from pathlib import Path

from gpt_lightning.tokenizer.base import Tokenizer
from gpt_lightning.tokenizer.gpt2 import GPT2Tokenizer
from gpt_lightning.tokenizer.trained_bpe import TrainedBPE


def load_tokenizer(name_or_path: str | Path) -> Tokenizer:
    """The tokenizer called `gpt2` or `gpt2_chatml`, or the one in a `tokenizer.json` (its path or its folder's).

    Raises:
        ValueError: there is no such tokenizer, or the file is not one.
    """
    if name_or_path == "gpt2":
        return GPT2Tokenizer(chat=False)
    if name_or_path == "gpt2_chatml":
        return GPT2Tokenizer(chat=True)
    path = Path(name_or_path)
    if path.is_dir():
        path = path / "tokenizer.json"
    if not path.is_file():
        raise ValueError(
            f"there is no tokenizer '{name_or_path}': it is neither gpt2, gpt2_chatml nor a tokenizer.json."
        )
    return TrainedBPE(path)
