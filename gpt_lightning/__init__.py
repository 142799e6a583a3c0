"""The learner: model, tokenizer, optimisation, generation, checkpoints. No Hydra anywhere below."""

from gpt_lightning.checkpoint import load_model

__all__ = ["load_model"]
