"""Model, tokenizer, optimizers, generation, evaluation, checkpoints and conversion.

Nothing in this package imports Hydra.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpt_lightning.convert import load_model as load_model

__all__ = ["load_model"]


def __getattr__(name: str) -> Any:
    """Import `load_model` on first use, so that importing only the tokenizer does not import torch."""
    if name == "load_model":
        from gpt_lightning.convert import load_model

        return load_model
    raise AttributeError(f"module {__name__} has no attribute {name}")
