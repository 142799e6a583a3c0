"""The learner: model, tokenizer, optimisation, generation, checkpoints, conversion. No Hydra anywhere below."""

from gpt_lightning.convert import load_model

__all__ = ["load_model"]
