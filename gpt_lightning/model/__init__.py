"""The GPT model. Start reading at `gpt.py`."""

from gpt_lightning.model.config import GPTConfig
from gpt_lightning.model.gpt import GPT

__all__ = ["GPT", "GPTConfig"]
