"""Which parameters decay, how the learning rate moves, which steps stand out. The optimizers are torch's and bitsandbytes'."""

from gpt_lightning.optim.parameter_groups import parameter_groups
from gpt_lightning.optim.schedules import cosine_schedule
from gpt_lightning.optim.spikes import Spikes

__all__ = ["Spikes", "cosine_schedule", "parameter_groups"]
