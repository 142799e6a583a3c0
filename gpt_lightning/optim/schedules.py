"""Learning rates as functions of the step."""

import math
from collections.abc import Callable


def cosine_schedule(*, warmup_steps: int, steps: int, final_ratio: float) -> Callable[[int], float]:
    """The share of the peak learning rate at each step (0 is the first).

    It rises linearly from 0 over `warmup_steps`, then falls along half a cosine to `final_ratio` at `steps`.

    Raises:
        ValueError: the warm-up is negative or not shorter than the run, or `final_ratio` is no share.
    """
    if not 0 <= warmup_steps < steps:
        raise ValueError(
            f"schedule.warmup_steps is {warmup_steps}: it must be 0 or more and below max_steps={steps}, for example "
            f"schedule.warmup_steps={steps // 10}."
        )
    if not 0 <= final_ratio <= 1:
        raise ValueError(f"schedule.final_ratio is {final_ratio}: it must lie between 0 and 1.")

    def share(step: int) -> float:
        if step < warmup_steps:
            return step / warmup_steps
        progress = min(1.0, (step - warmup_steps) / (steps - warmup_steps))
        return final_ratio + (1 - final_ratio) * (1 + math.cos(math.pi * progress)) / 2

    return share
