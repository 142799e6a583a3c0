"""Optimizers, parameter groups, learning-rate schedules and the detection of loss spikes.

The optimizers are those of torch and bitsandbytes, and `MuonAdamW`, which combines two of torch's optimizers.
`optimizer_traits` returns what an optimizer supports.
"""

from gpt_lightning.learning_rate_schedules import learning_rate_schedule
from gpt_lightning.optim.muon import MuonAdamW
from gpt_lightning.optim.optimizer_rehearsal import rehearse_optimizer_step
from gpt_lightning.optim.optimizer_traits import OPTIMIZER_TRAITS, OptimizerTraits, optimizer_traits
from gpt_lightning.optim.parameter_groups import apply_lr_multipliers_once, parameter_groups
from gpt_lightning.optim.spike_detector import SpikeDetector
from gpt_lightning.optim.step_counter_device import place_step_counters

__all__ = [
    "OPTIMIZER_TRAITS",
    "MuonAdamW",
    "OptimizerTraits",
    "SpikeDetector",
    "apply_lr_multipliers_once",
    "learning_rate_schedule",
    "optimizer_traits",
    "parameter_groups",
    "place_step_counters",
    "rehearse_optimizer_step",
]
