"""Which parameters decay, and how the learning rate moves. The optimizers themselves are torch's and bitsandbytes'."""

from gpt_lightning.optim.parameter_groups import parameter_groups
from gpt_lightning.optim.schedules import cosine_schedule

__all__ = ["cosine_schedule", "parameter_groups"]
