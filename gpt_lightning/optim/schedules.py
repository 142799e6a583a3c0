"""Learning rates as functions of the step: a linear rise, perhaps a plateau, a fall whose shape has a name."""

import math
import re
from collections.abc import Callable

FALLS: dict[str, Callable[[float], float]] = {
    "cosine": lambda progress: (1 + math.cos(math.pi * progress)) / 2,
    "linear": lambda progress: 1 - progress,
    "wsd": lambda progress: 1 - math.sqrt(progress),
    "constant": lambda progress: 1.0,
}
"""Shape -> progress from 0 to 1 -> the share of the way down that is left, from 1 to 0."""


def learning_rate_schedule(
    *, shape: str, warmup_steps: int, steps: int, final_ratio: float = 1.0, decay_share: float | None = None
) -> Callable[[int], float]:
    """The share of the peak learning rate at each step (0 is the first).

    It rises linearly from 0 over `warmup_steps`, then falls to `final_ratio` at `steps`, by its shape:

    * `cosine`: along half a cosine, from the warm-up on.
    * `linear`: along a line, from the warm-up on.
    * `wsd`, warm-up, stable, decay (arXiv:2404.06395): only over the last `decay_share` of the run, by 1 - sqrt, the best one of
      arXiv:2405.18392. Until then nothing depends on the run's length: it may be made longer, and branches that fall may set
      out from anywhere.
    * `constant`: not at all; `final_ratio` has no part in it.

    Args:
        shape: a key of FALLS.
        warmup_steps: in steps.
        steps: of the run.
        final_ratio: what the fall ends at, as a share of the peak.
        decay_share: of `wsd`, as a share of the run's steps.

    Raises:
        ValueError: the shape is unknown, the warm-up is negative or not shorter than the run, a share is none, or the fall of
            `wsd` would begin before the warm-up ends.
    """
    if shape not in FALLS:
        raise ValueError(f"schedule.shape is {shape!r}: it must be one of {', '.join(FALLS)}.")
    if type(warmup_steps) is not int or not 0 <= warmup_steps < steps:
        percent = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", str(warmup_steps))
        example = f"{float(percent[1]) / 100:.6g}" if percent else "0.05"
        raise ValueError(
            f"schedule.warmup_steps is {warmup_steps}: it must be 0 or more and below max_steps={steps}, a whole number such as "
            f"{steps // 10}, or a share of the run such as {example}."
        )
    if not 0 <= final_ratio <= 1:
        raise ValueError(f"schedule.final_ratio is {final_ratio}: it must lie between 0 and 1.")
    begin = float(warmup_steps)
    if shape == "wsd":
        if decay_share is None or not 0 < decay_share <= 1:
            raise ValueError(f"schedule.decay_share is {decay_share}: it must be above 0 and at most 1.")
        begin = steps * (1 - decay_share)
        if begin < warmup_steps:
            raise ValueError(
                f"schedule.decay_share is {decay_share} of max_steps={steps}, and schedule.warmup_steps={warmup_steps} leaves "
                f"only {1 - warmup_steps / steps:.3g} of them: make one of them smaller."
            )
    elif decay_share is not None:
        raise ValueError(
            f"schedule.decay_share is {decay_share}, and shape {shape} has no plateau: it is for wsd alone."
        )
    fall = FALLS[shape]

    def share(step: int) -> float:
        if step < warmup_steps:
            return step / warmup_steps
        progress = min(1.0, max(0.0, (step - begin) / (steps - begin)))
        return final_ratio + (1 - final_ratio) * fall(progress)

    return share
