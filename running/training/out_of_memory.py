"""Message for a GPU that runs out of memory."""

from contextlib import suppress

import torch

from running.config.run_config import RunConfig
from running.training.cost_estimate import estimate_peak_memory


def out_of_memory(config: RunConfig, step: int) -> str:
    """One sentence with the micro-batch, plan.py's estimate, the GPU's memory, and what to set.

    Args:
        config: config of the run, with resolved precision.
        step: number of completed steps.
    """
    micro_batch, trainer = config.micro_batch, config.trainer
    gpu = torch.cuda.get_device_properties(torch.cuda.current_device())
    expected = ""
    with suppress(ValueError):  # an optimizer whose state has an unknown size
        memory = estimate_peak_memory(config, precision=trainer.precision, device_type="cuda")
        expected = f" (plan.py estimates {memory / 1e9:.1f} GB)"
    of_rank = config.global_batch // (trainer.devices * trainer.num_nodes)
    smaller = [n for n in range(1, micro_batch) if of_rank % n == 0]
    mends = [f"micro_batch={smaller[-1]}"] if smaller else []
    if trainer.recompute == "none":
        mends.append("trainer.recompute=blocks")
    mend = " or ".join(mends) or "a smaller model or model.max_seq_len"
    return (
        f"after step {step}, {gpu.name} is out of memory with micro_batch={micro_batch}{expected}; the GPU has "
        f"{gpu.total_memory / 1e9:.1f} GB: set {mend}, and run the same command again."
    )
