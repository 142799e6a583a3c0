"""Model, tokenizer, optimizers, generation, evaluation, checkpoints and conversion. Nothing in this package imports Hydra."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpt_lightning.convert import load_model as load_model

__all__ = ["load_model"]


def __getattr__(name: str) -> Any:
    """`load_model` when it is asked for: whoever only wants the tokenizer need not wait for torch."""
    if name == "load_model":
        from gpt_lightning.convert import load_model

        return load_model
    raise AttributeError(f"module {__name__} has no attribute {name}")
