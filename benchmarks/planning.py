"""Plan a very long run: seconds and megabytes until its order is known.

The order is everything that `locate` needs anywhere in the run, and what every source has drawn by any step. The mix
weights change continuously.
"""

import resource
import time

import numpy as np

from data_modules import Curriculum, SampleOrder


def measure(who: str, *, steps: int, global_batch: int, sources: int) -> dict[str, float]:
    """Seconds and megabytes to plan a run.

    Args:
        who: ours.
        steps: number of steps of the run.
        global_batch: sequences per step.
        sources: number of sources.
    """
    assert who == "ours"
    random = np.random.default_rng(0)
    names = [f"source_{k}" for k in range(sources)]
    frames = {
        f"k{n}": {"at": n / 8, "weights": dict(zip(names, random.random(sources), strict=True))} for n in range(8)
    }
    limits = dict.fromkeys(names[: sources // 2], 4.0)
    curriculum = Curriculum(keyframes=frames, max_epochs=limits, on_exhausted="redistribute")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.perf_counter()
    order = SampleOrder(
        curriculum.resolve(steps=steps, tokens_per_step=1),
        sequences=dict.fromkeys(names, steps * global_batch // sources // 3),
        global_batch=global_batch,
        seed=0,
    )
    order.drawn_before(np.linspace(0, steps, 11).astype(np.int64))
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3}
