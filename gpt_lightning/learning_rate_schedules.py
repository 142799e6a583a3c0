"""Learning-rate schedules: a linear warm-up, an optional plateau, and a decay of a named shape."""

import math
import re
from collections.abc import Callable

FALLS: dict[str, Callable[[float], float]] = {
    "cosine": lambda progress: (1 + math.cos(math.pi * progress)) / 2,
    "linear": lambda progress: 1 - progress,
    "wsd": lambda progress: 1 - math.sqrt(progress),
    "constant": lambda progress: 1.0,
}
"""Shape -> function from progress, 0 to 1, to the remaining share of the decay, 1 to 0."""


def learning_rate_schedule(
    *, shape: str, warmup_steps: int, steps: int, final_ratio: float = 1.0, decay_share: float | None = None
) -> Callable[[int], float]:
    """Return the schedule as a function from the step (0 is the first) to the share of the peak learning rate.

    The share rises linearly from 0 over `warmup_steps`, then decays to `final_ratio` at `steps`. `shape` is the decay:

    * `cosine`: half a cosine, starting after the warm-up.
    * `linear`: a line, starting after the warm-up.
    * `wsd`, warm-up, stable, decay (arXiv:2404.06395): only over the last `decay_share` of the run, as 1 - sqrt, the
      best shape in arXiv:2405.18392. Before the decay, nothing depends on the run's length: the run can be extended,
      and decaying branches can start at any step.
    * `constant`: no decay; `final_ratio` has no effect.

    Args:
        shape: A key of FALLS.
        warmup_steps: Length of the warm-up, in steps.
        steps: Length of the run, in steps.
        final_ratio: Learning rate at the end of the decay, as a share of the peak.
        decay_share: Length of the decay of `wsd`, as a share of the run; None for other shapes.

    Raises:
        ValueError: The shape is unknown, the warm-up is negative or not shorter than the run, a share is out of range,
            or the decay of `wsd` would start before the warm-up ends.
    """
    if shape not in FALLS:
        raise ValueError(f"schedule.shape is {shape!r}: it must be one of {', '.join(FALLS)}.")
    if type(warmup_steps) is not int or not 0 <= warmup_steps < steps:
        percent = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", str(warmup_steps))
        example = f"{float(percent[1]) / 100:.6g}" if percent else "0.05"
        raise ValueError(
            f"schedule.warmup_steps is {warmup_steps}: it must be 0 or more and below max_steps={steps}, as a "
            f"whole number such as {steps // 10}, or as a share of the run such as {example}."
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
                f"schedule.decay_share is {decay_share}: it must be at most {1 - warmup_steps / steps:.3g}, because "
                f"schedule.warmup_steps={warmup_steps} of max_steps={steps} leaves only this share. Reduce one of them."
            )
    elif decay_share is not None:
        raise ValueError(
            f"schedule.decay_share is {decay_share}: it must be null for schedule.shape={shape}; only wsd "
            "has a decay_share."
        )
    fall = FALLS[shape]

    def share(step: int) -> float:
        if step < warmup_steps:
            return step / warmup_steps
        progress = min(1.0, max(0.0, (step - begin) / (steps - begin)))
        return final_ratio + (1 - final_ratio) * fall(progress)

    return share
