"""The processes of a run."""

import os


def is_first_rank() -> bool:
    """Whether this process, of those that torchrun or Slurm started, is the one that writes."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", os.environ.get("LOCAL_RANK", "0")))) == 0
