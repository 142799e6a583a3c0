"""The model. `gpt.py` is the place to begin reading."""

from gpt_lightning.model.config import GPTConfig
from gpt_lightning.model.gpt import GPT

__all__ = ["GPT", "GPTConfig"]
