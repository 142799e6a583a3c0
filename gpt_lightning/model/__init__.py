"""The GPT model. Start reading at `gpt.py`."""

from typing import TYPE_CHECKING, Any

from gpt_lightning.model.config import GPTConfig

if TYPE_CHECKING:
    from gpt_lightning.model.gpt import GPT as GPT

__all__ = ["GPT", "GPTConfig"]


def __getattr__(name: str) -> Any:
    """Import `GPT` on first use, so that importing `GPTConfig` does not import torch."""
    if name == "GPT":
        from gpt_lightning.model.gpt import GPT

        return GPT
    raise AttributeError(f"module {__name__} has no attribute {name}")
